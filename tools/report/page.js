// Puts the page together: summary, steps, what is kept, tree map, leaves; and, when a server stands
// behind it, asks for what is new and for the statistics of a leaf when it is chosen.

const firstData = JSON.parse(byId('data').textContent);
byId('data').remove();
const live = firstData.live;
const token = new URLSearchParams(location.search).get('token');
const state = {report: null, step: -1, leaf: -1, leafIdentity: null, rows: [], expanded: new Set()};

function tile(title, value, note) {
  const definition = element('dd', {}, value);
  if (note) definition.append(element('small', {}, note));
  return element('div', {}, element('dt', {}, title), definition);
}

function showSummary(report) {
  const {store} = report.data;
  const last = report.stepCount - 1;
  document.title = `${store.name} · Stepstone`;
  byId('store').textContent = store.name;
  byId('summary').textContent = last < 0 ? 'There are no steps in this store.'
    : `${plural(report.stepCount, 'step')}, ${report.stepCount > 1 ? `${report.stepName(0)} to ` : ''}${report.stepName(last)}; newest committed ${formatTime(report.steps.committed_unix_ms[last])} UTC`;
  const tiles = [tile('Steps', formatCount(report.stepCount), `${plural(store.commit_count, 'commit')} so far`)];
  if (last >= 0) {
    let elements = 0;
    const bytesOfType = new Map();
    for (let leaf = 0; leaf < report.leafCount; ++leaf) {
      if (!report.isCurrent(leaf)) continue;
      elements += report.elementCount(leaf);
      bytesOfType.set(report.typeName(leaf), (bytesOfType.get(report.typeName(leaf)) ?? 0) + report.size[leaf]);
    }
    const [[type, typeBytes] = ['', 0]] = [...bytesOfType].sort((a, b) => b[1] - a[1]);
    tiles.push(tile('Newest step', formatBytes(report.steps.size_bytes[last]), plural(report.steps.leaf_count[last], 'leaf', 'leaves')));
    tiles.push(tile('Elements', formatCompact(elements), type && `${formatShare(typeBytes, report.tree.size)} of the bytes ${type}`));
    const total = report.steps.size_bytes.reduce((sum, size) => sum + size, 0);
    if (store.usage) tiles.push(tile('On disk', formatBytes(store.usage.stored_bytes), `for ${formatBytes(total)} of leaves`));
    if (report.measured.length) {
      const bad = report.badLeaves.size;
      tiles.push(tile('NaN or infinity', bad ? plural(bad, 'leaf', 'leaves') : 'none', `in ${plural(report.measured.length, 'measured step')}`));
    }
  }
  byId('tiles').replaceChildren(...tiles);
}

function alertBox(title, lines, more) {
  const list = element('ul');
  for (const line of lines) list.append(element('li', {}, line));
  if (more > 0) list.append(element('li', {class: 'muted'}, `and ${formatCount(more)} more`));
  return element('div', {class: 'alert', role: 'note'}, element('strong', {}, title), list);
}

function showAlerts(report) {
  const boxes = [];
  if (report.data.problem_count > 0) {
    boxes.push(alertBox(`${plural(report.data.problem_count, 'thing')} could not be read`,
      report.data.problems.slice(0, 8).map((problem) => problem.message), report.data.problem_count - Math.min(8, report.data.problems.length)));
  }
  if (report.badLeaves.size > 0) {
    const found = [...report.badLeaves].sort((a, b) => a[1] - b[1]);
    boxes.push(alertBox('NaN or infinity', found.slice(0, 5).map(([leaf, step]) =>
      element('span', {}, element('button', {class: 'link', onclick: () => chooseLeaf(leaf, true)}, report.fullName(leaf)),
              ` first at measured step ${report.stepName(step)}`)), found.length - 5));
  }
  byId('alerts').replaceChildren(...boxes);
}

// Steps.

const metricValue = (report, i, name) => {
  const value = report.steps.metrics[i]?.[name];
  return typeof value === 'number' ? value : value === undefined ? undefined : NaN;
};
const isBetterLow = (name) => /loss|err|perplex|mse|mae|nll/i.test(name);

function findBestStep(report, name) {
  let best = -1;
  for (let i = 0; i < report.stepCount; ++i) {
    const value = metricValue(report, i, name);
    if (!Number.isFinite(value)) continue;
    if (best < 0 || (isBetterLow(name) ? value < metricValue(report, best, name) : value > metricValue(report, best, name))) best = i;
  }
  return best;
}

function describeStep(report, i) {
  if (i < 0) return 'No steps.';
  const {size_bytes: size, shared_bytes: shared, stored_bytes: stored, save_ms: save, metrics} = report.steps;
  const parts = [`Step ${report.stepName(i)}`, `${formatTime(report.steps.committed_unix_ms[i])} UTC`, formatBytes(size[i])];
  if (shared) parts.push(`${formatBytes(stored[i])} written` + (shared[i] > 0 ? `, ${formatBytes(shared[i])} (${formatShare(shared[i], size[i])}) shared` : ''));
  if (save[i] >= 0) parts.push(`saved in ${save[i] < 1000 ? save[i] + ' ms' : (save[i] / 1000).toFixed(1) + ' s'}`);
  for (const [name, value] of Object.entries(metrics[i] ?? {}).slice(0, 6)) parts.push(`${name} ${typeof value === 'number' ? formatNumber(value) : value}`);
  return parts.join(' · ');
}

let stepCharts = [];
function makeStepCharts() {
  const choose = (i) => { state.step = i; drawStepCharts(); keptRows.draw(); };
  const drawMetric = (host, report, chosen) => {
    const name = byId('metric-name').value;
    const best = report.bestSteps.get(name);
    const points = report.steps.step.map((_, i) => {
      const value = metricValue(report, i, name);
      return {value: value ?? NaN, bad: value !== undefined && !Number.isFinite(value) && `${name} is not a number at step ${report.stepName(i)}`, best: i === best};
    });
    return drawLine(host, {points, names: report.steps.step, chosen, height: 210});
  };
  stepCharts = [new StepChart(byId('size-chart'), 'Size of each step', state.report, drawSizes, choose),
                new StepChart(byId('time-chart'), 'When each step was committed', state.report, drawTimes, choose),
                new StepChart(byId('metric-chart'), 'Metric of each step', state.report, drawMetric, choose)];
  byId('metric-name').onchange = drawStepCharts;
}

function drawStepCharts() {
  const report = state.report;
  const names = report.metricNames;
  byId('metric-figure').hidden = names.length === 0;
  const select = byId('metric-name');
  if (select.options.length !== names.length) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => element('option', {value: name}, name)));
    if (names.includes(before)) select.value = before;
  }
  const text = describeStep(report, state.step);
  byId('step-readout').textContent = text;
  // Where a row is too narrow for its tags.
  byId('kept-readout').textContent = state.step < 0 ? '' :
    [`Step ${report.stepName(state.step)}`, ...stepTags(report, state.step).map(([tag]) => tag)].join(' · ');
  for (const chart of stepCharts) {
    chart.report = report;
    if (report.stepCount > 0 && !(chart.host.id === 'metric-chart' && names.length === 0)) chart.show(state.step, text);
    else chart.host.replaceChildren();
  }
}

// What is kept.

function keptFacts(report) {
  const {store} = report.data;
  const facts = [];
  if (report.stepCount === 0) return ['Nothing is kept yet.'];
  facts.push(...ruleFacts(report));
  const gone = store.commit_count - report.stepCount;
  facts.push(`${plural(store.commit_count, 'commit')} were made and ${plural(report.stepCount, 'step')} are kept`.replace('1 commit were', '1 commit was').replace('1 step are', '1 step is')
    + (gone > 0 ? ': the others removed or replaced steps, or what they saved was removed or replaced since.' : '.'));
  const numbers = report.steps.step.map((text) => BigInt(text));
  let divisor = 0n;
  for (let number of numbers) { let other = divisor; while (other) [number, other] = [other, number % other]; divisor = number; }
  if (report.stepCount > 2 && divisor > 1n) facts.push(`Each is a multiple of ${divisor}.`);
  if (report.stepCount > 2) {
    const gaps = new Set(numbers.slice(1).map((number, i) => String(number - numbers[i])));
    facts.push(gaps.size === 1 ? `They are ${[...gaps][0]} apart.` : `The distances between them are ${[...gaps].slice(0, 6).join(', ')}${gaps.size > 6 ? ' and others' : ''}.`);
  }
  for (const name of report.metricNames.slice(0, 4)) {
    const best = report.bestSteps.get(name);
    if (best >= 0 && report.stepCount > 1) facts.push(`The ${isBetterLow(name) ? 'lowest' : 'highest'} ${name} among them is ${formatNumber(metricValue(report, best, name))}, at step ${report.stepName(best)}.`);
  }
  const kept = new Set(report.steps.step);
  const held = new Set();
  report.steps.uses_saves_of.forEach((used) => used.forEach((step) => { if (!kept.has(step)) held.add(step); }));
  if (held.size) facts.push(`Steps that are gone but wrote bytes which kept steps still use: ${[...held].slice(0, 12).join(', ')}${held.size > 12 ? ' and others' : ''}.`);
  if (store.usage && store.usage.hidden_bytes > 0) facts.push(`${formatBytes(store.usage.hidden_bytes)} of files of removed steps stay for what others need; ${formatBytes(store.usage.reclaimable_bytes)} in all files is needed by none.`);
  return facts;
}

// What the trainer said of the rules by which it keeps steps.
function ruleFacts({data: {kept}}) {
  if (!kept) return ['Whoever saved the steps did not say by which rule they are kept. What can be read off them:'];
  const words = kept.rules.map((rule) => rule.words);
  const last = words.pop();
  const facts = [`The trainer keeps ${words.length ? `${words.join(', ')} and ${last}` : last}, as it said with its last save.`];
  const loose = kept.by.filter((rules) => rules.length === 0).length;
  if (loose === 0) return facts;
  const those = loose === 1 ? 'One step is' : `${loose} steps are`;
  facts.push(kept.rules.every((rule) => rule.is_known)
    ? `${those} kept by none of these rules, and may go with the next save.`
    : `${those} kept by none of these rules that can be told from here.`);
  return facts;
}

function ruleTags({data: {kept}}, i) {
  if (!kept) return [];
  if (kept.by[i].length) return kept.by[i].map((rule) => [kept.rules[rule].words, 'rule']);
  const unknown = kept.rules.find((rule) => !rule.is_known);
  return [unknown ? [`perhaps: ${unknown.words}`, ''] : ['kept by no rule now', '']];
}

function stepTags(report, i) {
  const tags = ruleTags(report, i);
  if (i === report.stepCount - 1 && !report.data.kept) tags.push(['newest', 'good']);
  for (const name of report.metricNames.slice(0, 4)) {
    if (report.stepCount > 1 && report.bestSteps.get(name) === i) tags.push([`${isBetterLow(name) ? 'lowest' : 'highest'} ${name}`, 'good']);
  }
  const users = report.usersOf[i];
  if (users > 0) tags.push([`${plural(users, 'step')} use${users === 1 ? 's' : ''} its bytes`, '']);
  if (report.badSteps.has(i)) tags.push(['NaN or infinity', 'bad']);
  return tags;
}

const keptRows = new Rows(byId('kept-table'), {
  render(index, row) {
    const report = state.report, i = report.stepCount - 1 - index;
    row.setAttribute('aria-selected', String(i === state.step));
    const tags = element('span', {class: 'tags'});
    for (const [text, kind] of stepTags(report, i)) tags.append(element('span', {class: `tag ${kind}`}, text));
    row.append(element('span', {class: 'step'}, report.stepName(i)), tags,
               element('span', {class: 'number wide'}, formatTime(report.steps.committed_unix_ms[i])),
               element('span', {class: 'number wide'}, report.steps.shared_bytes?.[i] > 0 ? `${formatBytes(report.steps.shared_bytes[i])} shared` : ''),
               element('span', {class: 'number'}, formatBytes(report.steps.size_bytes[i])));
  },
  choose(index) { state.step = state.report.stepCount - 1 - index; drawStepCharts(); },
});

function prepareSteps(report) {
  // Losses first, as most people look for them.
  const names = new Set();
  for (const metrics of report.steps.metrics) for (const name of Object.keys(metrics ?? {})) names.add(name);
  report.metricNames = [...names].sort((a, b) => /loss/i.test(b) - /loss/i.test(a));
  report.bestSteps = new Map(report.metricNames.map((name) => [name, findBestStep(report, name)]));
  const place = new Map(report.steps.step.map((step, i) => [step, i]));
  report.usersOf = new Array(report.stepCount).fill(0);
  report.steps.uses_saves_of.forEach((used) => used.forEach((step) => { if (place.has(step)) ++report.usersOf[place.get(step)]; }));
  report.badSteps = new Set();
  report.measured.forEach((step, s) => {
    for (let leaf = 0; leaf < report.leafCount; ++leaf) {
      if (report.flags[s * report.leafCount + leaf] & (kHasNan | kHasInfinity)) { report.badSteps.add(step); break; }
    }
  });
}

// Leaves.

const list = new Rows(byId('list'), {
  role: 'treeitem',
  render(index, row) {
    const report = state.report, entry = state.rows[index];
    const node = entry instanceof TreeNode ? entry : null;
    const leaf = node ? node.leaf : entry;
    const depth = node ? node.path().length : 1;
    row.setAttribute('aria-level', depth);
    row.style.paddingLeft = `${10 + Math.min(depth - 1, 12) * 16}px`;
    const name = element('span', {class: 'name'}, node ? node.label : report.fullName(leaf));
    if (leaf < 0) {
      row.classList.add('group');
      row.setAttribute('aria-expanded', String(node.expanded));
      row.append(element('span', {class: 'twisty', 'aria-hidden': 'true'}, node.expanded ? '▾' : '▸'), name);
      if (node.bad) row.append(element('span', {class: 'tag bad'}, 'NaN'));
      row.append(element('span', {class: 'number wide'}, plural(node.leafCount, 'leaf', 'leaves')), element('span', {class: 'number'}, formatBytes(node.size)));
      return;
    }
    row.setAttribute('aria-selected', String(leaf === state.leaf));
    row.setAttribute('title', report.fullName(leaf));
    if (node) row.append(element('span', {class: 'twisty', 'aria-hidden': 'true'}, ''));
    row.append(name);
    if (report.badLeaves.has(leaf)) row.append(element('span', {class: 'tag bad'}, 'NaN'));
    if (!report.isCurrent(leaf)) row.append(element('span', {class: 'tag'}, `until ${report.stepName(report.newestStep[leaf])}`));
    const points = report.series(leaf);
    if (points.filter((point) => point.flags & kMeasured).length > 1) row.append(sparkline(points));
    row.append(element('span', {class: 'number'}, byId('order').value === 'norm' ? formatNumber(report.newestNorm(leaf)) : formatBytes(report.size[leaf])));
  },
  choose(index) {
    const entry = state.rows[index];
    if (!(entry instanceof TreeNode)) chooseLeaf(entry);
    else if (entry.leaf >= 0) chooseLeaf(entry.leaf);
    else toggle(entry);
  },
  // Right opens a group or goes to its first child, left closes it or goes to its parent.
  keys(event, index) {
    const node = state.rows[index] instanceof TreeNode ? state.rows[index] : null;
    if (!node || (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight')) return undefined;
    const opens = event.key === 'ArrowRight';
    if (node.leaf < 0 && node.expanded !== opens) { toggle(node); return index; }
    if (opens) return node.leaf < 0 ? index + 1 : index;
    const parent = state.rows.indexOf(node.parent);
    return parent < 0 ? index : parent;
  },
});

const nodeKey = (node) => node.path().map((n) => n.separator + n.label).join('\n');

function toggle(node) {
  node.expanded = !node.expanded;
  state.expanded[node.expanded ? 'add' : 'delete'](nodeKey(node));
  fillList(state.rows.indexOf(node));
}

// Opens the tree from the top for as long as it stays short.
function openTree(tree) {
  let level = tree.children, shown = level.length;
  while (level.length) {
    const next = level.flatMap((node) => node.leaf < 0 && node.children.length <= 60 ? node.children : []);
    if (!next.length || shown + next.length > 60) return;
    for (const node of level) if (node.leaf < 0 && node.children.length <= 60) { node.expanded = true; state.expanded.add(nodeKey(node)); }
    shown += next.length;
    level = next;
  }
}

function restoreTree(node) {
  for (const child of node.children) {
    if (child.leaf >= 0) continue;
    child.expanded = state.expanded.has(nodeKey(child));
    if (child.expanded) restoreTree(child);
  }
}

function treeRows(tree) {
  const rows = [];
  const walk = (node) => { for (const child of node.children) { rows.push(child); if (child.expanded) walk(child); } };
  walk(tree);
  return rows;
}

function fillList(active = 0) {
  const report = state.report;
  const {test, error} = parseFilter(byId('filter').value);
  const order = byId('order').value;
  if (!test && order === 'tree') {
    state.rows = treeRows(report.tree);
    byId('match-count').textContent = `${plural(report.leafCount, 'leaf', 'leaves')}`;
  } else {
    const found = [];
    for (let leaf = 0; leaf < report.leafCount; ++leaf) if (!test || test(report.fullName(leaf))) found.push(leaf);
    if (order === 'size') found.sort((a, b) => report.size[b] - report.size[a]);
    if (order === 'norm') {
      const norms = new Map(found.map((leaf) => [leaf, report.newestNorm(leaf)]));
      const key = (leaf) => { const norm = norms.get(leaf); return Number.isNaN(norm) || norm === undefined ? -1 : norm; };
      found.sort((a, b) => key(b) - key(a));
    }
    if (order === 'bad') {
      const key = (leaf) => report.badLeaves.get(leaf) ?? Infinity;
      found.sort((a, b) => (key(a) === key(b) ? a - b : key(a) - key(b)));
    }
    state.rows = found;
    const size = found.reduce((sum, leaf) => sum + (report.isCurrent(leaf) ? report.size[leaf] : 0), 0);
    byId('match-count').textContent = error ? `Not a regular expression: ${error}`
      : `${formatCount(found.length)} of ${plural(report.leafCount, 'leaf', 'leaves')}, ${formatBytes(size)}`;
  }
  list.setCount(state.rows.length, active);
}

// Brings the row of a leaf into view, if the list has it.
function reveal(leaf) {
  const isTree = state.rows.length > 0 && state.rows[0] instanceof TreeNode;
  if (!isTree) {
    const row = state.rows.indexOf(leaf);
    if (row >= 0) list.moveTo(row);
    return;
  }
  const node = state.report.nodeOf[leaf];
  let opened = false;
  for (let up = node.parent; up.parent; up = up.parent) {
    opened ||= !up.expanded;
    up.expanded = true;
    state.expanded.add(nodeKey(up));
  }
  if (opened) fillList();
  list.moveTo(state.rows.indexOf(node));
}

function chooseLeaf(leaf, scroll = false) {
  state.leaf = leaf;
  state.leafIdentity = leaf < 0 ? null : state.report.identity(leaf);
  showDetail();
  if (leaf >= 0) reveal(leaf);
  list.draw();
  if (scroll) byId('leaves').scrollIntoView({block: 'start'});
  if (live && leaf >= 0) measure(leaf);
}

// What a server said of a leaf still holds for the steps that are still the same saves.
function keepLive(before, report, leaf) {
  const old = before?.live.get(state.leaf);
  if (leaf < 0 || !old) return;
  const place = new Map(report.steps.step.map((step, i) => [step, i]));
  const kept = new Map();
  for (const [step, found] of old) {
    const now = place.get(before.stepName(step));
    if (now !== undefined && report.steps.committed_unix_ms[now] === before.steps.committed_unix_ms[step]) kept.set(now, found);
  }
  report.live.set(leaf, kept);
}

// What somebody would look at first: where something went wrong, else where the most bytes are.
function leafToBeginWith(report) {
  if (report.badLeaves.size) return [...report.badLeaves].sort((a, b) => a[1] - b[1])[0][0];
  let largest = report.leafCount ? 0 : -1;
  for (let leaf = 1; leaf < report.leafCount; ++leaf) if (report.size[leaf] > report.size[largest]) largest = leaf;
  return largest;
}

function figure(title, value, kind = '') {
  return element('div', {class: kind}, element('dt', {}, title), element('dd', {}, value));
}

function showDetail() {
  const report = state.report, leaf = state.leaf, host = byId('detail');
  if (leaf < 0) {
    host.replaceChildren(element('p', {class: 'muted'}, 'Choose a leaf to see its figures, its norm over the steps and its histogram.'));
    return;
  }
  const tags = element('div', {class: 'tags'}, element('span', {class: 'tag'}, report.typeName(leaf)), element('span', {class: 'tag'}, report.shapeText(leaf)));
  if (!report.isCurrent(leaf)) tags.append(element('span', {class: 'tag bad'}, `not in steps after ${report.stepName(report.newestStep[leaf])}`));
  host.replaceChildren(element('p', {class: 'path'}, report.fullName(leaf)), tags);
  const basics = element('dl', {class: 'figures'}, figure('Elements', formatCount(report.elementCount(leaf))), figure('Size', formatBytes(report.size[leaf])),
    figure('Of the newest step', report.isCurrent(leaf) ? formatShare(report.size[leaf], report.steps.size_bytes[report.stepCount - 1]) : 'not in it'));
  host.append(basics);
  const points = report.series(leaf);
  const measured = points.filter((point) => point.flags & kMeasured);
  const known = report.figures(leaf);
  if (points.some((point) => point.flags & kUnreadable)) host.append(element('p', {class: 'alert'}, 'In some of the steps its bytes could not be read.'));
  if (!measured.length) {
    host.append(element('p', {class: 'muted'}, live && state.measuring ? 'Reading it …' : points.length ? 'It has no numbers to measure.' : 'No statistics were taken.'));
    return;
  }
  const place = element('div');
  if (known.length) {
    const select = element('select', {'aria-label': 'Step of these figures', onchange: () => fillFigures()});
    known.forEach((found, i) => select.append(element('option', {value: i}, `step ${report.stepName(found.step)}`)));
    host.append(element('h3', {}, 'Figures at ', select), place);
    const fillFigures = () => showFigures(place, known[Number(select.value)], report, leaf);
    fillFigures();
  }
  if (measured.length < 2) return;
  host.append(element('h3', {}, `Norm over ${plural(measured.length, 'measured step')}`));
  const chart = element('div', {class: 'chart'});
  host.append(chart);
  const marks = measured.map((point) => ({value: point.norm,
    bad: point.flags & (kHasNan | kHasInfinity) ? `${point.flags & kHasNan ? 'NaN' : 'infinity'} at step ${report.stepName(point.step)}` : ''}));
  chart.replaceChildren(drawLine(chart, {points: marks, names: measured.map((point) => report.stepName(point.step)), chosen: -1, height: 170}).root);
  const bad = measured.filter((point) => point.flags & (kHasNan | kHasInfinity));
  if (bad.length) host.append(element('p', {class: 'hint'}, `▲ NaN or infinity; first at measured step ${report.stepName(bad[0].step)}. The norm leaves them out.`));
}

function showFigures(place, found, report, leaf) {
  const entries = [['Smallest', found.min], ['Largest', found.max], ['Mean', found.mean], ['Standard deviation', found.std], ['Norm (L2)', found.norm]];
  const figures = element('dl', {class: 'figures'}, ...entries.map(([title, value]) => figure(title, formatNumber(value))),
    figure('Zeros', `${formatCount(found.zero)} (${formatShare(found.zero, report.elementCount(leaf))})`),
    figure('NaN', formatCount(found.nan), found.nan > 0 ? 'bad' : ''), figure('Infinity', formatCount(found.infinite), found.infinite > 0 ? 'bad' : ''));
  place.replaceChildren(figures);
  if (found.flags & kUnchanged) place.append(element('p', {class: 'hint'}, 'The same bytes as in the measured step before.'));
  if (found.histogram) {
    const chart = element('div', {class: 'chart'});
    place.append(element('h3', {}, 'Histogram: elements by value'), chart);
    chart.replaceChildren(drawHistogram(chart, found.histogram));
  } else {
    place.append(element('p', {class: 'hint'}, 'No histogram of it is kept in this page; “stepstone serve” makes one when it is asked for.'));
  }
}

// A server behind the page.

async function ask(path, parameters = {}) {
  const response = await fetch(`${path}?${new URLSearchParams({token, ...parameters})}`, {cache: 'no-store'});
  if (response.status === 204) return null;
  if (!response.ok) throw new Error(`${response.status}`);
  return response.json();
}

function setLive(text, lost = false) {
  const label = byId('live');
  label.hidden = false;
  label.textContent = text;
  label.classList.toggle('lost', lost);
}

// The leaf's statistics, newest step first, until another leaf is chosen.
async function measure(leaf) {
  const report = state.report;
  const isWanted = () => state.report === report && state.leaf === leaf;
  if (!report.live.has(leaf)) report.live.set(leaf, new Map());
  const found = report.live.get(leaf);
  const every = Math.max(1, Math.ceil(report.stepCount / 24));
  await new Promise((done) => setTimeout(done, 150));  // For those who only walk past.
  for (let step = report.newestStep[leaf]; step >= 0 && isWanted(); step -= every) {
    if (found.has(step)) continue;
    state.measuring = true;
    try {
      const answer = await ask('statistics', {step: report.stepName(step), item: report.items[report.item[leaf]].name, leaf: report.paths[leaf]});
      if (answer) found.set(step, answer);
    } catch (error) {
      if (error.message !== '404') { state.measuring = false; return; }  // The poll says that it is lost.
    }
    state.measuring = false;
    if (isWanted()) { showDetail(); list.draw(); }
  }
}

async function poll() {
  if (!document.hidden) {
    try {
      const data = await ask('data', {revision: state.report.data.revision});
      if (data) show(data);
      setLive(`live, read ${formatTime(Date.now()).slice(11)} UTC`);
    } catch {
      setLive('the server does not answer', true);
    }
  }
  setTimeout(poll, 2000);
}

function show(data) {
  const before = state.report;
  const wasNewest = before && state.step === before.stepCount - 1;
  const report = state.report = new Report(data);
  if (!before || wasNewest) state.step = report.stepCount - 1;
  else state.step = Math.max(report.steps.step.indexOf(before.stepName(state.step)), 0);
  prepareSteps(report);
  showSummary(report);
  showAlerts(report);
  if (!stepCharts.length) makeStepCharts();
  drawStepCharts();
  byId('kept-facts').replaceChildren(...keptFacts(report).map((fact) => element('li', {}, fact)));
  byId('kept-table').style.height = `${Math.min(280, report.stepCount * 34 + 2)}px`;
  byId('kept-table').hidden = report.stepCount === 0;
  keptRows.setCount(report.stepCount);
  treeMap.show(report);
  if (before) restoreTree(report.tree); else openTree(report.tree);
  fillList(before ? list.active : 0);
  const again = state.leafIdentity === null ? -1 : report.paths.findIndex((_, leaf) => report.identity(leaf) === state.leafIdentity);
  keepLive(before, report, again);
  chooseLeaf(before || live ? again : leafToBeginWith(report));
  byId('footer').textContent = `Stepstone ${data.version}; read ${formatTime(data.created_unix_ms)} UTC. `
    + (report.measured.length ? `Statistics of ${plural(report.measured.length, 'step')} of ${formatCount(report.stepCount)}.`
       : live ? 'Statistics are taken when a leaf is chosen.' : 'No statistics were taken.');
}

const treeMap = new TreeMap(byId('map'), byId('map-path'), byId('map-readout'), (leaf) => chooseLeaf(leaf, true));
byId('filter').addEventListener('input', () => fillList());
byId('order').addEventListener('change', () => fillList());
byId('filter').addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && byId('filter').value) { byId('filter').value = ''; fillList(); event.preventDefault(); }
  if (event.key === 'ArrowDown') { byId('list').focus(); event.preventDefault(); }
});
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
  byId('filter').focus();
  event.preventDefault();
});
let width = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth === width || !state.report) return;
  width = document.body.clientWidth;
  drawStepCharts();
  showDetail();
}).observe(document.body);

show(firstData);
if (live) poll();
