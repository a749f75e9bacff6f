// A list of any length of which only the rows in view exist. The list has the focus and names its
// active row to assistive technology; the arrow keys move that row.

class Rows {
  // `render(index, row)` fills an element; `choose(index)` answers a click, Enter or the space bar;
  // `keys(event, index)` may take a key for itself and then returns the row to go to, or undefined.
  constructor(host, {rowHeight = 34, render, choose, keys = () => undefined, role = 'option'}) {
    Object.assign(this, {host, rowHeight, render, choose, keys, role, count: 0, active: 0});
    this.spacer = element('div', {role: 'presentation'});
    this.body = element('div', {role: 'presentation'});
    host.replaceChildren(this.spacer, this.body);
    host.addEventListener('scroll', () => this.draw());
    host.addEventListener('keydown', (event) => this.onKey(event));
    new ResizeObserver(() => this.draw()).observe(host);
  }

  setCount(count, active = 0) {
    this.count = count;
    this.active = Math.min(Math.max(active, 0), Math.max(count - 1, 0));
    this.spacer.style.height = `${count * this.rowHeight}px`;
    this.draw();
  }

  draw() {
    const height = this.host.clientHeight;
    const begin = Math.max(0, Math.floor(this.host.scrollTop / this.rowHeight) - 3);
    const end = Math.min(this.count, Math.ceil((this.host.scrollTop + height) / this.rowHeight) + 3);
    const made = [];
    for (let i = begin; i < end; ++i) made.push(this.makeRow(i));
    // The active row stays a part of the document when it is out of view, as the list refers to it.
    if (this.count && (this.active < begin || this.active >= end)) made.push(this.makeRow(this.active));
    this.body.replaceChildren(...made);
    if (this.count) this.host.setAttribute('aria-activedescendant', this.rowId(this.active));
    else this.host.removeAttribute('aria-activedescendant');
  }

  rowId(index) { return `${this.host.id}-row-${index}`; }

  makeRow(index) {
    const row = element('div', {class: 'row', role: this.role, id: this.rowId(index),
                                'aria-posinset': index + 1, 'aria-setsize': this.count, 'aria-selected': 'false'});
    row.style.height = `${this.rowHeight}px`;
    row.style.transform = `translateY(${index * this.rowHeight}px)`;
    if (index === this.active) row.classList.add('active');
    row.addEventListener('click', () => { this.active = index; this.choose(index); this.draw(); });
    this.render(index, row);
    return row;
  }

  moveTo(index) {
    if (!this.count) return;
    this.active = Math.min(Math.max(index, 0), this.count - 1);
    const top = this.active * this.rowHeight;
    if (top < this.host.scrollTop) this.host.scrollTop = top;
    const bottom = top + this.rowHeight - this.host.clientHeight;
    if (bottom > this.host.scrollTop) this.host.scrollTop = bottom;
    this.draw();
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.count) return;
    const page = Math.max(1, Math.floor(this.host.clientHeight / this.rowHeight) - 1);
    const target = {ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + page, PageUp: this.active - page,
                    Home: 0, End: this.count - 1}[event.key] ?? this.keys(event, this.active);
    if (target !== undefined) this.moveTo(target);
    else if (event.key === 'Enter' || event.key === ' ') { this.choose(this.active); this.draw(); }
    else return;
    event.preventDefault();
  }
}
