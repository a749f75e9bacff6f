// What the page shows: decodes the report's data and answers questions about it. Names come from
// stores and may be anything at all; they only ever become text nodes and attribute values.

const kPresent = 1, kMeasured = 2, kHasNan = 4, kHasInfinity = 8, kUnchanged = 16, kUnreadable = 32;
const kNoHistogram = 0xFFFFFFFF;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'class') made.className = value;
    else if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);

function bytesOf(base64) {
  const raw = atob(base64);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; ++i) bytes[i] = raw.charCodeAt(i);
  return bytes;
}
const column = (Type, base64) => new Type(bytesOf(base64).buffer);

function formatBytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (count >= 1023.95 && unit + 1 < units.length) { count /= 1024; ++unit; }
  return (unit === 0 ? count : count.toFixed(count < 10 ? 2 : 1)) + ' ' + units[unit];
}
// Of any number of values; the spread of an array is bounded by the stack.
const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
const formatCount = (count) => count.toLocaleString('en');
const plural = (count, one, many = one + 's') => `${formatCount(count)} ${count === 1 ? one : many}`;
function formatNumber(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(3) : String(Number(value.toPrecision(5)));
}
const formatShare = (part, whole) => {
  if (!(whole > 0)) return '0%';
  const percent = 100 * part / whole;
  return (percent === 0 ? '0' : percent < 0.1 ? '<0.1' : percent.toFixed(percent < 10 ? 1 : 0)) + '%';
};
const formatTime = (ms) => Number.isFinite(ms) && Math.abs(ms) < 8e15
  ? new Date(ms).toISOString().replace('T', ' ').slice(0, 19) : 'unknown';

// A path in parts, for people: at '/', before '[', and at the dots that weights' names use for
// the same thing. Each part knows what stood before it.
function partsOf(path) {
  const parts = [];
  let start = 0, separator = '';
  const push = (end, next) => { parts.push({separator, label: path.slice(start, end)}); separator = next; };
  for (let i = 0; i < path.length; ++i) {
    const c = path[i];
    if (c === '\\') ++i;
    else if (c === '/' || (c === '.' && i > start)) { push(i, c); start = i + 1; }
    else if (c === '[' && i > start) { push(i, ''); start = i; }
  }
  push(path.length, '');
  return parts;
}

// A node of the tree of leaves; `leaf` is the leaf's number, or -1 for a group.
class TreeNode {
  constructor(label, separator, parent, leaf = -1) {
    Object.assign(this, {label, separator, parent, leaf, children: [], size: 0, leafCount: 0, bad: false, expanded: false});
  }
  path() { return this.parent ? [...this.parent.path(), this] : []; }
}

const naturally = new Intl.Collator('en', {numeric: true});

class Report {
  constructor(data) {
    this.data = data;
    this.steps = data.steps;
    this.stepCount = data.steps.step.length;
    this.items = data.items;
    const leaves = data.leaves;
    this.leafCount = leaves.suffix.length;
    this.item = column(Uint32Array, leaves.item);
    this.type = column(Uint8Array, leaves.type);
    this.shape = column(Uint32Array, leaves.shape);
    this.size = column(Float64Array, leaves.size_bytes);
    this.newestStep = column(Uint32Array, leaves.newest_step);
    const shared = column(Uint32Array, leaves.shared);
    this.paths = new Array(this.leafCount);
    for (let i = 0, before = ''; i < this.leafCount; ++i) {
      before = this.paths[i] = before.slice(0, shared[i]) + leaves.suffix[i];
    }
    this.live = new Map();  // leaf -> Map(step -> statistics), asked of a server.
    this.readStatistics(data.statistics);
    this.tree = this.buildTree();
  }

  readStatistics(statistics) {
    this.measured = statistics ? statistics.steps : [];
    this.details = new Map();
    this.badLeaves = new Map();  // leaf -> the first measured step with a NaN or an infinity.
    if (!statistics) return;
    this.norm = column(Float32Array, statistics.norm);
    this.flags = column(Uint8Array, statistics.flags);
    const names = ['nan', 'infinite', 'zero', 'min', 'max', 'mean', 'std', 'norm'];
    this.detailColumns = Object.fromEntries(names.map((name) => [name, column(Float64Array, statistics.figures[name])]));
    const rows = column(Uint32Array, statistics.figures.row);
    column(Uint32Array, statistics.figures.cell).forEach((cell, i) => this.details.set(cell, rows[i]));
    this.histogramOfRow = column(Uint32Array, statistics.figures.histogram);
    this.bins = statistics.histograms.bins;
    this.low = column(Float64Array, statistics.histograms.low);
    this.high = column(Float64Array, statistics.histograms.high);
    this.counts = column(Float64Array, statistics.histograms.counts);
    for (let s = 0; s < this.measured.length; ++s) {
      for (let leaf = 0; leaf < this.leafCount; ++leaf) {
        if (this.flags[s * this.leafCount + leaf] & (kHasNan | kHasInfinity) && !this.badLeaves.has(leaf)) {
          this.badLeaves.set(leaf, this.measured[s]);
        }
      }
    }
  }

  buildTree() {
    const root = new TreeNode('', '', null);
    this.nodeOf = [];
    const groups = new Map([[root, new Map()]]);
    const enter = (node, label, separator) => {
      const known = groups.get(node);
      let child = known.get(label);
      if (!child) {
        child = new TreeNode(label, separator, node);
        node.children.push(child);
        known.set(label, child);
        groups.set(child, new Map());
      }
      return child;
    };
    for (let leaf = 0; leaf < this.leafCount; ++leaf) {
      let node = root;
      if (this.items.length > 1) node = enter(node, this.items[this.item[leaf]].name, '');
      const parts = partsOf(this.paths[leaf]);
      const last = parts.pop();
      for (const part of parts) node = enter(node, part.label, part.separator);
      const made = new TreeNode(last.label || '(the item itself)', last.separator, node, leaf);
      node.children.push(made);
      this.nodeOf.push(made);
      const size = this.isCurrent(leaf) ? this.size[leaf] : 0;
      const bad = this.badLeaves.has(leaf);
      for (let up = made; up; up = up.parent) { up.size += size; ++up.leafCount; up.bad ||= bad; }
    }
    this.compact(root);
    return root;
  }

  // A group with one child says no more than that child.
  compact(node) {
    for (let i = 0; i < node.children.length; ++i) {
      let child = node.children[i];
      while (child.leaf < 0 && child.children.length === 1) {
        const only = child.children[0];
        only.label = child.label + only.separator + only.label;
        only.separator = child.separator;
        only.parent = node;
        child = node.children[i] = only;
      }
      if (child.leaf < 0) this.compact(child);
    }
    node.children.sort((a, b) => naturally.compare(a.label, b.label));
  }

  isCurrent(leaf) { return this.newestStep[leaf] === this.stepCount - 1; }
  typeName(leaf) { return this.data.leaves.types[this.type[leaf]]; }
  shapeText(leaf) { return this.data.leaves.shapes[this.shape[leaf]]; }
  elementCount(leaf) { return this.data.leaves.element_counts[this.shape[leaf]]; }
  stepName(index) { return this.steps.step[index]; }
  fullName(leaf) {
    const path = this.paths[leaf] || '(the item itself)';
    return this.items.length > 1 ? `${this.items[this.item[leaf]].name}: ${path}` : path;
  }
  identity(leaf) { return this.item[leaf] + '\n' + this.paths[leaf]; }

  // What is known of a leaf over the steps: ascending, {step, flags, norm}.
  series(leaf) {
    if (this.live.has(leaf)) {
      return [...this.live.get(leaf)].map(([step, found]) => ({step, flags: found.flags, norm: found.norm}))
        .sort((a, b) => a.step - b.step);
    }
    return this.measured.map((step, s) => {
      const cell = s * this.leafCount + leaf;
      return {step, flags: this.flags[cell], norm: this.norm[cell]};
    }).filter((point) => point.flags & kPresent);
  }

  // The figures of a leaf, newest step first, as far as they are known.
  figures(leaf) {
    if (this.live.has(leaf)) {
      return [...this.live.get(leaf)].map(([step, found]) => ({step, ...found})).sort((a, b) => b.step - a.step);
    }
    const found = [];
    for (let s = this.measured.length - 1; s >= 0; --s) {
      const cell = s * this.leafCount + leaf;
      const row = this.details.get(cell);
      if (row === undefined) continue;
      const figures = {step: this.measured[s], flags: this.flags[cell]};
      for (const [name, values] of Object.entries(this.detailColumns)) figures[name] = values[row];
      const histogram = this.histogramOfRow[row];
      if (histogram !== kNoHistogram) {
        const begin = histogram * this.bins;
        figures.histogram = {low: this.low[histogram], high: this.high[histogram],
                             counts: this.counts.subarray(begin, begin + this.bins)};
      }
      found.push(figures);
    }
    return found;
  }

  newestNorm(leaf) {
    const points = this.series(leaf);
    return points.length ? points[points.length - 1].norm : NaN;
  }
}

// Words match anywhere, * and ? are a pattern for the whole path, /…/ is a regular expression.
// Returns a predicate over text, or an error to show.
function parseFilter(text) {
  const wanted = text.trim();
  if (!wanted) return {test: null};
  if (wanted.length > 1 && wanted.startsWith('/') && wanted.endsWith('/')) {
    try {
      const expression = new RegExp(wanted.slice(1, -1));
      return {test: (name) => expression.test(name)};
    } catch (error) {
      return {test: () => false, error: error.message};
    }
  }
  if (/[*?]/.test(wanted)) {
    const source = wanted.replace(/[.+^${}()|[\]\\]/g, '\\$&').replace(/\*+/g, '.*').replace(/\?/g, '.');
    const expression = new RegExp(`^${source}$`, 'i');
    return {test: (name) => expression.test(name)};
  }
  const words = wanted.toLowerCase().split(/\s+/);
  return {test: (name) => { const lower = name.toLowerCase(); return words.every((word) => lower.includes(word)); }};
}
