// Charts as SVG, redrawn when their place changes its width. Colours come from the style sheet, so
// that they follow the theme by themselves.

function svg(tag, attributes = {}, content) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (content !== undefined) made.textContent = content;
  return made;
}

// Round numbers from low to high, about `wanted` of them.
function ticksBetween(low, high, wanted, base = 10) {
  if (!(high > low)) return [low];
  const rough = (high - low) / wanted;
  const power = base ** Math.floor(Math.log(rough) / Math.log(base));
  const step = (base === 10 ? [1, 2, 5, 10] : [1, 2, 4, 8, 16]).map((m) => m * power).find((s) => s >= rough) ?? power * base;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9 && ticks.length < 50; ++k) ticks.push(k * step || 0);
  return ticks;
}

function byteTicks(high) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(Math.max(high, 1)) / Math.log(1024)));
  return ticksBetween(0, high / unit, 4).map((tick) => tick * unit);
}
function byteTickText(value) {
  const text = formatBytes(value);
  return text.replace(/\.0+ /, ' ').replace(/(\.\d)0 /, '$1 ');
}

const kTimeUnits = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800,
                    604800, 2592000, 7776000, 31536000].map((seconds) => seconds * 1000);
function timeTicks(low, high, wanted) {
  const unit = kTimeUnits.find((u) => (high - low) / u <= wanted) ?? (high - low) / wanted;
  const ticks = [];
  for (let t = Math.ceil(low / unit) * unit; t <= high && ticks.length < 20; t += unit) ticks.push(t);
  const text = (t) => unit >= 86400000 ? formatTime(t).slice(0, 10)
    : unit >= 60000 ? ((high - low) > 86400000 ? formatTime(t).slice(5, 16) : formatTime(t).slice(11, 16))
    : formatTime(t).slice(11, 19);
  return {ticks, text};
}

// The frame of a chart: horizontal lines at the ticks of the y axis, with their texts left of it.
function frame(host, {height, yTicks, yText, yLow, yHigh, xTitle, left}) {
  const width = Math.max(240, host.clientWidth);
  const margin = {left: left ?? 14 + 6.6 * Math.max(...yTicks.map((tick) => yText(tick).length)), right: 12, top: 10, bottom: xTitle ? 40 : 24};
  const root = svg('svg', {viewBox: `0 0 ${width} ${height}`, height, 'aria-hidden': 'true'});
  const plot = {x: margin.left, y: margin.top, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom};
  const y = (value) => plot.y + plot.height * (1 - (value - yLow) / (yHigh - yLow || 1));
  for (const tick of yTicks) {
    root.append(svg('line', {class: 'grid', x1: plot.x, x2: plot.x + plot.width, y1: y(tick), y2: y(tick)}),
                svg('text', {x: plot.x - 8, y: y(tick) + 4, 'text-anchor': 'end'}, yText(tick)));
  }
  root.append(svg('line', {class: 'axis', x1: plot.x, x2: plot.x + plot.width, y1: plot.y + plot.height, y2: plot.y + plot.height}));
  if (xTitle) root.append(svg('text', {x: plot.x + plot.width / 2, y: height - 6, 'text-anchor': 'middle'}, xTitle));
  return {root, plot, y, width};
}

// Texts below the x axis, as many as fit without touching; the last one is always there.
function xLabels(root, plot, positions, texts) {
  const y = plot.y + plot.height + 17;
  const half = (i) => 3.5 * texts[i].length;
  const place = (i) => Math.min(Math.max(positions[i], plot.x + half(i) - 8), plot.x + plot.width - half(i) + 10);
  const last = positions.length - 1;
  if (last < 0) return;
  const limit = place(last) - half(last) - 12;
  let edge = -Infinity;
  for (let i = 0; i < last; ++i) {
    if (place(i) - half(i) < edge || place(i) + half(i) > limit) continue;
    root.append(svg('text', {x: place(i), y, 'text-anchor': 'middle'}, texts[i]));
    edge = place(i) + half(i) + 12;
  }
  root.append(svg('text', {x: place(last), y, 'text-anchor': 'middle'}, texts[last]));
}

// Where each of `count` things stands on an axis of equal distances.
function bandsOf(plot, count) {
  const size = plot.width / Math.max(count, 1);
  return {size, middle: (i) => plot.x + size * (i + 0.5), at: (x) => Math.min(count - 1, Math.max(0, Math.floor((x - plot.x) / size)))};
}

// A chart on which a step can be chosen: with the pointer, or like a slider with the keys.
class StepChart {
  constructor(host, label, report, draw, onChoose) {
    Object.assign(this, {host, report, draw, onChoose, chosen: report.stepCount - 1});
    host.setAttribute('role', 'slider');
    host.setAttribute('tabindex', '0');
    host.setAttribute('aria-label', label);
    host.onkeydown = (event) => {
      const last = this.report.stepCount - 1;
      const target = {ArrowLeft: this.chosen - 1, ArrowDown: this.chosen - 1, ArrowRight: this.chosen + 1, ArrowUp: this.chosen + 1,
                      PageDown: this.chosen - 10, PageUp: this.chosen + 10, Home: 0, End: last}[event.key];
      if (target === undefined || last < 0) return;
      event.preventDefault();
      this.onChoose(Math.min(last, Math.max(0, target)));
    };
    host.onclick = (event) => {
      if (!this.stepAt || this.report.stepCount === 0) return;
      const box = host.getBoundingClientRect();
      this.onChoose(this.stepAt(event.clientX - box.left));
    };
  }
  show(chosen, description) {
    this.chosen = chosen;
    this.host.setAttribute('aria-valuemin', '0');
    this.host.setAttribute('aria-valuemax', String(Math.max(0, this.report.stepCount - 1)));
    this.host.setAttribute('aria-valuenow', String(Math.max(0, chosen)));
    this.host.setAttribute('aria-valuetext', description);
    const drawn = this.draw(this.host, this.report, chosen);
    this.stepAt = drawn.stepAt;
    this.host.replaceChildren(drawn.root);
  }
}

function drawSizes(host, report, chosen) {
  const {size_bytes: size, shared_bytes: shared, step} = report.steps;
  // More bars than there is room for become bars of several steps each, as high as the largest.
  const roomFor = Math.max(20, Math.floor((Math.max(240, host.clientWidth) - 70) / 5));
  const perBar = Math.ceil(report.stepCount / roomFor) || 1;
  const bars = [];
  for (let begin = 0; begin < report.stepCount; begin += perBar) {
    let largest = begin;
    for (let i = begin; i < Math.min(begin + perBar, report.stepCount); ++i) if (size[i] > size[largest]) largest = i;
    bars.push(largest);
  }
  const yTicks = byteTicks(Math.max(1, ...bars.map((i) => size[i])));
  const yHigh = 1.06 * Math.max(1, ...bars.map((i) => size[i]));
  const {root, plot, y} = frame(host, {height: 210, yTicks, yText: byteTickText, yLow: 0, yHigh,
    xTitle: perBar > 1 ? `step (each bar: the largest of ${perBar})` : 'step'});
  const bands = bandsOf(plot, bars.length);
  const width = Math.min(44, Math.max(1, bands.size * 0.72));
  bars.forEach((i, b) => {
    const part = shared ? Math.min(shared[i], size[i]) : 0;
    const x = bands.middle(b) - width / 2;
    if (Math.floor(chosen / perBar) === b) root.append(svg('rect', {class: 'chosen-band', x: bands.middle(b) - Math.min(bands.size, width + 14) / 2, y: plot.y, width: Math.min(bands.size, width + 14), height: plot.height, rx: 3}));
    root.append(svg('rect', {class: 'written-bar', x, y: y(size[i] - part), width, height: Math.max(0, y(0) - y(size[i] - part))}),
                svg('rect', {class: 'shared-bar', x, y: y(size[i]), width, height: Math.max(0, y(size[i] - part) - y(size[i]))}));
  });
  xLabels(root, plot, bars.map((_, b) => bands.middle(b)), bars.map((i) => step[i]));
  return {root, stepAt: (x) => perBar === 1 ? bands.at(x) : bars[bands.at(x)]};
}

function drawTimes(host, report, chosen) {
  const times = report.steps.committed_unix_ms;
  const numbers = report.steps.step.map(Number);
  let low = least(times), high = most(times);
  if (!Number.isFinite(low)) low = high = 0;
  if (high - low < 1000) { low -= 500; high += 500; }
  const top = Math.max(1, most(numbers));
  const yTicks = ticksBetween(0, top, 4).filter(Number.isInteger);
  const text = (value) => value >= 1e6 ? Number((value / 1e6).toPrecision(12)) + 'M' : String(value);
  const {root, plot, y} = frame(host, {height: 210, yTicks, yText: text, yLow: 0, yHigh: top, xTitle: `${formatTime(low).slice(0, 10)}, time in UTC`});
  const x = (time) => plot.x + 6 + (plot.width - 12) * (time - low) / (high - low);
  root.append(svg('polyline', {class: 'line', points: times.map((time, i) => `${x(time).toFixed(1)},${y(numbers[i]).toFixed(1)}`).join(' ')}));
  const every = Math.ceil(report.stepCount / 150);
  times.forEach((time, i) => {
    if (i % every && i !== chosen) return;
    root.append(svg('circle', {class: 'dot' + (i === chosen ? ' chosen' : ''), cx: x(time), cy: y(numbers[i]), r: i === chosen ? 5 : 3}));
  });
  const {ticks, text: timeText} = timeTicks(low, high, Math.max(2, Math.floor(plot.width / 90)));
  xLabels(root, plot, ticks.map(x), ticks.map(timeText));
  const stepAt = (at) => times.reduce((best, time, i) => Math.abs(x(time) - at) < Math.abs(x(times[best]) - at) ? i : best, 0);
  return {root, stepAt};
}

// A line over steps; what is not a finite number is a red mark at the foot.
function drawLine(host, {points, names, chosen, height = 180, xTitle = 'step'}) {
  const finite = points.filter((point) => Number.isFinite(point.value)).map((point) => point.value);
  let low = least(finite), high = most(finite);
  if (!finite.length) { low = 0; high = 1; }
  if (low > 0 && low < high * 0.6) low = 0;
  if (high === low) { const pad = Math.abs(high) * 0.1 || 1; low -= pad; high += pad; }
  const pad = (high - low) * 0.06;
  const yLow = low === 0 ? 0 : low - pad, yHigh = high + pad;
  const yTicks = ticksBetween(yLow, yHigh, 5);
  const {root, plot, y} = frame(host, {height, yTicks, yText: formatTick, yLow, yHigh, xTitle});
  const bands = bandsOf(plot, points.length);
  let run = [];
  const flush = () => {
    if (run.length > 1) root.append(svg('polyline', {class: 'line', points: run.join(' ')}));
    run = [];
  };
  points.forEach((point, i) => {
    if (Number.isFinite(point.value)) run.push(`${bands.middle(i).toFixed(1)},${y(point.value).toFixed(1)}`);
    else flush();
  });
  flush();
  const every = Math.ceil(points.length / 150);
  points.forEach((point, i) => {
    const x = bands.middle(i);
    if (Number.isFinite(point.value) && (i % every === 0 || i === chosen || point.best)) {
      root.append(svg('circle', {class: (point.best ? 'best-mark' : 'dot') + (i === chosen ? ' chosen' : ''), cx: x, cy: y(point.value), r: i === chosen || point.best ? 5 : 3}));
    }
    if (point.bad) {
      const foot = plot.y + plot.height;
      const mark = svg('path', {class: 'bad-mark', d: `M${x} ${foot - 11}l6 11h-12z`});
      mark.append(svg('title', {}, point.bad));
      root.append(mark);
    }
  });
  xLabels(root, plot, points.map((_, i) => bands.middle(i)), names);
  return {root, stepAt: (x) => bands.at(x)};
}

const formatTick = (value) => {
  const rounded = Number(value.toPrecision(6));
  return Math.abs(rounded) >= 1e5 || (rounded !== 0 && Math.abs(rounded) < 1e-3) ? rounded.toExponential() : String(rounded);
};

function drawHistogram(host, {low, high, counts}) {
  const highest = Math.max(1, most(counts));
  const yTicks = ticksBetween(0, highest, 4).filter(Number.isInteger);
  const {root, plot, y} = frame(host, {height: 180, yTicks, yText: formatCompact, yLow: 0, yHigh: highest, xTitle: 'value', left: 50});
  const bands = bandsOf(plot, counts.length);
  counts.forEach((count, i) => {
    const bar = svg('rect', {class: 'bin', x: bands.middle(i) - bands.size / 2 + 0.5, y: y(count), width: Math.max(0.5, bands.size - 1), height: Math.max(0, y(0) - y(count))});
    const from = low + (high - low) * i / counts.length, to = low + (high - low) * (i + 1) / counts.length;
    bar.append(svg('title', {}, `${formatNumber(from)} to ${formatNumber(to)}: ${formatCount(count)}`));
    root.append(bar);
  });
  const x = (value) => plot.x + plot.width * (value - low) / (high - low || 1);
  const ticks = high > low ? ticksBetween(low, high, Math.max(2, Math.floor(plot.width / 80))) : [low];
  xLabels(root, plot, high > low ? ticks.map(x) : [plot.x + plot.width / 2], ticks.map(formatTick));
  return root;
}

const formatCompact = (value) => new Intl.NumberFormat('en', {notation: 'compact', maximumFractionDigits: 1}).format(value);

// The norm over the steps in the width of a word, for a row of the list.
function sparkline(points) {
  const root = svg('svg', {class: 'spark', viewBox: '0 0 72 20', height: 20, 'aria-hidden': 'true'});
  const finite = points.filter((point) => point.flags & kMeasured && Number.isFinite(point.norm));
  const low = Math.min(...finite.map((point) => point.norm)), high = Math.max(...finite.map((point) => point.norm));
  const x = (i) => points.length < 2 ? 36 : 3 + 66 * i / (points.length - 1);
  const y = (norm) => high > low ? 16 - 12 * (norm - low) / (high - low) : 10;
  const line = points.map((point, i) => finite.includes(point) ? `${x(i).toFixed(1)},${y(point.norm).toFixed(1)}` : '').filter(Boolean);
  if (line.length > 1) root.append(svg('polyline', {class: 'line', points: line.join(' '), 'stroke-width': 1.5}));
  points.forEach((point, i) => {
    if (point.flags & (kHasNan | kHasInfinity)) root.append(svg('circle', {class: 'bad-mark', cx: x(i), cy: Number.isFinite(point.norm) ? y(point.norm) : 10, r: 2.6}));
  });
  return root;
}
