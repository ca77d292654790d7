/* App: the state that all pictures share, and what each picture shows. */

class App {
  constructor(data) {
    const [channels, depth, height, width] = data.shape;
    this.data = data;
    this.size = { channels, depth, height, width, area: height * width, ...data.pixel };
    this.arrays = Object.fromEntries(Object.entries(data.arrays).map(([name, packed]) => [name, decode(packed)]));
    const std = this.arrays.block_std || this.arrays.std;
    this.covariance = std ? new Covariance(data, this.arrays.mean, std) : null;
    this.plane = { c: 0, z: data.plane, all: false };
    this.view = { x: width / 2, y: height / 2, zoom: 1, scale: true };
    this.t = data.variances.map(() => 0);
    this.selected = 0;
    this.draws = data.draws.map(decode);
    this.frame = Math.min(1, this.draws.length);
    this.mode = "move";
    this.map = "grey";
    this.pixel = null;
    this.strongest = 1;
    this.regions = [];
    this.named = 0;
    this.drag = null;
    this.panels = {};
    this.onchange = [];
    this.onhover = () => {};
    this.pending = false;
    this.limits = {};
  }

  start() { return (this.plane.c * this.size.depth + (this.plane.all ? 0 : this.plane.z)) * this.size.area; }
  count() { return (this.plane.all ? this.size.depth : 1) * this.size.area; }

  /* One plane as it is; all planes as the largest value along z (of either sign, for signed pictures). */
  project(values, signed) {
    const { area } = this.size;
    if (values.length === area) return values;
    const result = values.slice(0, area);
    for (let i = area; i < values.length; i++) {
      const j = i % area, old = result[j];
      if (signed ? Math.abs(values[i]) > Math.abs(old) : values[i] > old) result[j] = values[i];
    }
    return result;
  }

  stored(name) { return this.arrays[name].subarray(this.start(), this.start() + this.count()); }

  volumeLimits(name) {
    const key = `${name},${this.plane.c}`, volume = this.size.depth * this.size.area, first = this.plane.c * volume;
    if (!this.limits[key]) {
      const [low, high] = percentiles(this.arrays[name].subarray(first, first + volume), this.data.clip);
      this.limits[key] = name === "std" && high - low < 0.02 * high ? [0, 1.2 * high] : [low, high];
    }
    return this.limits[key];
  }

  source(name) {
    const place = () => `${this.plane.c},${this.plane.all ? "all" : this.plane.z}`;
    const fixed = (signed, map, limits) => ({
      key: () => `${place()},${this.map}`,
      values: () => this.project(this.stored(name), signed),
      look: () => ({ map: map || this.map, limits: limits || this.volumeLimits(name) }),
    });
    const sources = {
      data: () => fixed(false), mean: () => fixed(false), reference: () => fixed(false), backprojection: () => fixed(false),
      std: () => fixed(false, "magma"), residual: () => fixed(true, "diverging", [-4, 4]),
      data_share: () => fixed(false, "viridis", [0, 1]),
      snr: () => fixed(true, "magma", [-5, 10]), sigma: () => fixed(false, "viridis"), limit: () => fixed(false, "viridis"),
      moved: () => ({
        key: () => `${place()},${this.map},${this.t}`,
        values: () => {
          const change = this.covariance.change(this.t, this.start(), this.count()), mean = this.stored("mean");
          return this.project(change.map((value, i) => value + mean[i]), false);
        },
        look: () => ({ map: this.map, limits: this.volumeLimits("mean") }),
      }),
      component: () => ({
        key: () => `${place()},${this.selected}`,
        values: () => this.project(this.covariance.change(this.t.map((_, k) => +(k === this.selected)), this.start(), this.count()), true),
        look: () => ({ map: "diverging", limits: [-1, 1].map((sign) => sign * this.data.peaks[this.selected]) }),
      }),
      correlation: () => ({
        key: () => `${place()},${JSON.stringify(this.pixel)}`,
        values: () => this.project(this.correlations(this.start(), this.count()), true),
        look: () => ({ map: "diverging", limits: [-this.strongest, this.strongest] }),
      }),
    };
    if (name.startsWith("draw")) return this.drawn(name === "draw" ? () => this.frame : () => Number(name.slice(4)));
    return sources[name]();
  }

  /* Correlation of the marked pixel with `count` pixels; `strongest` becomes the largest with any but itself, from 0.1. */
  correlations(start, count) {
    if (!this.pixel) return new Float32Array(count);
    const own = this.index(this.pixel) - start, values = this.covariance.correlation(own + start, start, count);
    this.strongest = values.reduce((most, value, i) => (i !== own && Math.abs(value) > most ? Math.abs(value) : most), 0.1);
    return values;
  }

  /* The mean (frame 0) or a draw, which is stored as its difference from the mean in standard deviations. */
  drawn(frame) {
    return {
      key: () => `${this.plane.c},${this.plane.all ? "all" : this.plane.z},${this.map},${frame()}`,
      values: () => {
        const mean = this.stored("mean"), start = this.start(), scores = this.draws[frame() - 1];
        if (!scores) return this.project(mean, false);
        return this.project(mean.map((value, i) => value + this.covariance.std[start + i] * scores[start + i]), false);
      },
      look: () => ({ map: this.map, limits: this.volumeLimits("mean") }),
    };
  }

  index({ c, z, y, x }) { return ((c * this.size.depth + z) * this.size.height + y) * this.size.width + x; }

  changed() {
    this.onchange.forEach((react) => react());
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => this.draw());
  }
  draw() { this.pending = false; Object.values(this.panels).forEach((panel) => panel.draw()); }

  look(view) {
    const { width, height } = this.size;
    Object.assign(this.view, view);
    this.view.zoom = Math.max(1, Math.min(64, this.view.zoom));
    const margin = { x: width / 2 / this.view.zoom, y: height / 2 / this.view.zoom };
    this.view.x = Math.max(margin.x, Math.min(width - margin.x, this.view.x));
    this.view.y = Math.max(margin.y, Math.min(height - margin.y, this.view.y));
    this.changed();
  }
  zoomBy(factor, at = null) {
    const zoom = Math.max(1, Math.min(64, this.view.zoom * factor)), keep = this.view.zoom / zoom;
    const { x, y } = this.view;
    this.look(at ? { zoom, x: at.x + 0.5 + (x - at.x - 0.5) * keep, y: at.y + 0.5 + (y - at.y - 0.5) * keep } : { zoom });
  }
  reset() { this.look({ x: this.size.width / 2, y: this.size.height / 2, zoom: 1 }); }
  setPlane(z) { this.plane.z = Math.max(0, Math.min(this.size.depth - 1, Math.round(z))); this.plane.all = false; this.changed(); }
  setChannel(c) { this.plane.c = c; if (this.pixel) this.pixel.c = c; this.changed(); }
  setProjection(all) { this.plane.all = all; this.changed(); }
  setMap(map) { this.map = map; this.changed(); }
  setMode(mode) { this.mode = mode; this.changed(); }
  setComponent(k, amount) { this.t[k] = amount; this.selected = k; this.changed(); }
  setComponents(amounts) { this.t = this.t.map((_, k) => amounts[k] || 0); this.changed(); }
  setFrame(frame) { this.frame = Math.max(0, Math.min(this.draws.length, frame)); this.changed(); }
  select(k) { this.selected = k; this.changed(); }
  /* In a projection, the pixel picked is the brightest one along z. */
  pick({ x, y, z = this.plane.z }) {
    if (!this.covariance) return;
    const c = this.plane.c;
    if (this.plane.all) {
      for (let k = 0, best = -Infinity; k < this.size.depth; k++) {
        const value = this.arrays.mean[this.index({ c, z: k, y, x })];
        if (value > best) { best = value; z = k; }
      }
      this.plane.z = z;
    }
    this.pixel = { c, z, y, x };
    this.changed();
  }

  dragTo(a, b) {
    const [x0, x1, y0, y1] = [Math.min(a.x, b.x), Math.max(a.x, b.x), Math.min(a.y, b.y), Math.max(a.y, b.y)];
    this.drag = { z: this.plane.z, x0, x1, y0, y1 };
    this.changed();
  }
  endDrag() {
    const box = this.drag;
    this.drag = null;
    if (box) this.addRegion(box);
  }
  cancelDrag() { this.drag = null; this.changed(); }

  /* Region from x0 to x1 and y0 to y1 (shown pixels, both ends included); each weighs as many pixels as it stands for. */
  addRegion({ x0, x1, y0, y1, z = this.plane.z, c = this.plane.c }) {
    const pixels = [], weights = [], depth = this.data.counts.z[z];
    let alone = 0;
    for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) {
      pixels.push(this.index({ c, z, y, x }));
      weights.push(this.data.counts.y[y] * this.data.counts.x[x]);
      alone += (weights.at(-1) / depth) * this.arrays.std[pixels.at(-1)] ** 2;
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const found = this.covariance.region(pixels, weights.map((weight) => weight / total), x1 - x0 + 1);
    const name = String.fromCharCode(65 + (this.named % 26)) + (this.named >= 26 ? Math.floor(this.named / 26) : "");
    this.named++;
    const region = { name, c, z, x0, x1, y0, y1, ...found, independent: Math.sqrt(alone) / total };
    this.regions.push(region);
    this.changed();
    return region;
  }
  removeRegion(region) { this.regions = this.regions.filter((other) => other !== region); this.changed(); }

  /* Original pixels that a shown pixel stands for: [first, last] along an axis. Maps with an overlay show rows upward. */
  original(axis, at) {
    const factor = this.data.factors[axis], last = this.data.full[axis] - 1;
    if (axis === "y" && this.data.overlay) at = this.size.height - 1 - at;
    return [at * factor, Math.min(last, (at + 1) * factor - 1)];
  }
}
