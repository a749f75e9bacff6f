// The tree map: rectangles whose areas are bytes (squarified, after Bruls, Huizing and van Wijk).
// What would be too small to see is one rectangle for all of it, so that their number is bounded.

const kTileCountMax = 240;

// Divides `box` among `sizes`, which are descending. Returns a rectangle for each.
function squarify(sizes, box) {
  const total = sizes.reduce((sum, size) => sum + size, 0);
  let {x, y, width, height} = box;
  const scale = total > 0 ? width * height / total : 0;
  const boxes = [];
  for (let begin = 0; begin < sizes.length;) {
    const side = Math.max(1e-6, Math.min(width, height));
    let end = begin, area = 0, worst = Infinity;
    while (end < sizes.length) {
      const next = area + sizes[end] * scale;
      const ratio = Math.max(side * side * sizes[begin] * scale / (next * next), next * next / (side * side * sizes[end] * scale));
      if (ratio > worst) break;
      worst = ratio; area = next; ++end;
    }
    if (end === begin) ++end;
    const thickness = area / side;
    for (let i = begin, along = 0; i < end; ++i) {
      const length = area > 0 ? sizes[i] * scale / thickness : 0;
      boxes.push(width >= height ? {x, y: y + along, width: thickness, height: length}
                                 : {x: x + along, y, width: length, height: thickness});
      along += length;
    }
    if (width >= height) { x += thickness; width -= thickness; } else { y += thickness; height -= thickness; }
    begin = end;
  }
  return boxes;
}

class TreeMap {
  constructor(host, crumbs, readout, chooseLeaf) {
    Object.assign(this, {host, crumbs, readout, chooseLeaf, tiles: [], active: 0});
    host.addEventListener('keydown', (event) => this.onKey(event));
    host.addEventListener('focus', () => this.describe());
    new ResizeObserver(() => { if (this.report && host.clientWidth !== this.width) this.draw(); }).observe(host);
  }

  show(report) {
    // Back to the same place after the data were read again.
    const names = this.node && this.report ? this.node.path().map((node) => node.label) : [];
    this.report = report;
    this.node = report.tree;
    for (const name of names) {
      const child = this.node.children.find((c) => c.leaf < 0 && c.label === name);
      if (!child) break;
      this.node = child;
    }
    this.draw();
  }

  open(node) { this.node = node; this.active = 0; this.draw(); this.describe(); }

  draw() {
    this.width = this.host.clientWidth;
    this.tiles = [];
    this.budget = kTileCountMax;
    this.fill(this.node, {x: 0, y: 0, width: this.width, height: this.host.clientHeight}, 0, -1);
    this.host.replaceChildren(...this.tiles.map((tile) => tile.element));
    this.drawCrumbs();
    this.activate(Math.min(this.active, Math.max(0, this.tiles.length - 1)));
    if (!this.tiles.length) this.readout.textContent = 'The newest step has no bytes to show.';
  }

  fill(node, box, depth, colour) {
    const children = node.children.filter((child) => child.size > 0).sort((a, b) => b.size - a.size);
    const perByte = box.width * box.height / Math.max(node.size, 1);
    let kept = children.findIndex((child) => child.size * perByte < 90);
    if (kept < 0) kept = children.length;
    kept = Math.min(kept, depth === 0 ? 120 : 40, this.budget);
    if (kept === 0 && depth > 0) return;
    const rest = children.slice(kept);
    const entries = children.slice(0, kept).map((child) => ({node: child, size: child.size}));
    if (rest.length) entries.push({rest, size: rest.reduce((sum, child) => sum + child.size, 0)});
    entries.sort((a, b) => b.size - a.size);
    this.budget -= entries.length;
    const boxes = squarify(entries.map((entry) => entry.size), box);
    entries.forEach((entry, i) => {
      const own = depth === 0 ? i % 8 : colour;
      this.addTile(entry, boxes[i], own);
      const {x, y, width, height} = boxes[i];
      if (entry.node && entry.node.leaf < 0 && width > 84 && height > 52 && depth < 8 && this.budget > 0) {
        this.fill(entry.node, {x: x + 4, y: y + 20, width: width - 8, height: height - 24}, depth + 1, own);
      }
    });
  }

  addTile({node, rest, size}, box, colour) {
    const kind = rest ? 'rest' : node.leaf < 0 ? 'group' : 'leaf';
    const name = rest ? plural(rest.reduce((sum, n) => sum + n.leafCount, 0), 'smaller leaf', 'smaller leaves') : node.label;
    const made = element('div', {class: `tile ${kind}`, role: 'option', id: `tile-${this.tiles.length}`, 'aria-selected': 'false',
                                 'aria-label': `${name}, ${formatBytes(size)}, ${formatShare(size, this.node.size)}`});
    if (node?.bad) made.classList.add('bad');
    for (const [property, value] of [['left', box.x], ['top', box.y], ['width', box.width], ['height', box.height]]) {
      made.style[property] = `${value}px`;
    }
    if (!rest) made.style.backgroundColor = `var(--c${colour})`;
    if (box.width > 34 && box.height > 18) {
      made.append(name);
      if (box.width > 110) made.append(' ', element('small', {}, formatBytes(size)));
    }
    const tile = {element: made, node, rest, size, box, name};
    const index = this.tiles.push(tile) - 1;
    made.addEventListener('pointerenter', () => this.describe(tile));
    made.addEventListener('click', () => { this.activate(index); this.enter(tile); });
  }

  drawCrumbs() {
    const parts = [{label: 'All leaves', node: this.report.tree}, ...this.node.path().map((node) => ({label: node.label, node}))];
    this.crumbs.replaceChildren();
    parts.forEach((part, i) => {
      if (i) this.crumbs.append(element('span', {class: 'muted', 'aria-hidden': 'true'}, '›'));
      this.crumbs.append(i + 1 < parts.length ? element('button', {class: 'link', onclick: () => this.open(part.node)}, part.label)
                                              : element('span', {'aria-current': 'location'}, part.label));
    });
    this.crumbs.append(element('span', {class: 'muted'}, `${formatBytes(this.node.size)} in ${plural(this.node.leafCount, 'leaf', 'leaves')}`));
  }

  activate(index) {
    this.tiles[this.active]?.element.classList.remove('active');
    this.active = index;
    const tile = this.tiles[index];
    if (!tile) { this.host.removeAttribute('aria-activedescendant'); return; }
    if (document.activeElement === this.host) tile.element.classList.add('active');
    this.host.setAttribute('aria-activedescendant', tile.element.id);
  }

  describe(tile = this.tiles[this.active]) {
    if (!tile) return;
    if (document.activeElement === this.host && tile === this.tiles[this.active]) tile.element.classList.add('active');
    const path = tile.node ? (tile.node.leaf >= 0 ? this.report.fullName(tile.node.leaf) : tile.node.path().map((n, i) => (i ? n.separator : '') + n.label).join('')) : tile.name;
    this.readout.textContent = `${path}: ${formatBytes(tile.size)}, ${formatShare(tile.size, this.report.tree.size)} of the step`
      + (tile.node && tile.node.leaf < 0 ? `, ${plural(tile.node.leafCount, 'leaf', 'leaves')}` : '');
  }

  enter(tile) {
    if (tile?.node && tile.node.leaf >= 0) this.chooseLeaf(tile.node.leaf);
    else if (tile?.node) this.open(tile.node);
  }

  onKey(event) {
    const tile = this.tiles[this.active];
    const towards = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (towards && tile) {
      this.activate(this.neighbour(tile, towards));
      this.describe();
    } else if (event.key === 'Enter' || event.key === ' ') {
      this.enter(tile);
    } else if ((event.key === 'Backspace' || event.key === 'Escape') && this.node.parent) {
      this.open(this.node.parent);
    } else {
      return;
    }
    event.preventDefault();
  }

  // The nearest tile whose corner lies further in a direction; the corner, as groups hold others.
  neighbour(tile, [dx, dy]) {
    let best = this.active, distance = Infinity;
    this.tiles.forEach((other, i) => {
      const along = (other.box.x - tile.box.x) * dx + (other.box.y - tile.box.y) * dy;
      const across = Math.abs((other.box.x - tile.box.x) * dy) + Math.abs((other.box.y - tile.box.y) * dx);
      if (along > 0.5 && along + 2 * across < distance) { best = i; distance = along + 2 * across; }
    });
    return best;
  }
}
