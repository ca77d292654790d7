/* Uncertainty: covariance U E U' + S R S of the pixels shown, with U stored as integers and S = diag(sqrt(d)).
   d is what the exact standard deviation leaves after U E U', so that every pixel's own variance stays exact; R is the
   correlation by the kernel at the lag between two pixels of a channel, and without a kernel the identity.
   E is what the components' variances hold beyond what S R S gives them; sliders move by the whole variances. */

class Covariance {
  constructor(data, mean, std) {
    this.mean = mean;
    this.std = std;
    this.shape = data.shape;
    this.kernel = data.kernel ? { shape: data.kernel.shape, values: decode(data.kernel) } : { shape: [1, 1, 1], values: [1] };
    this.half = this.kernel.shape.map((n) => (n - 1) / 2);
    this.variances = data.variances;
    this.excess = data.excess;
    this.directions = data.directions.map((packed) => ({ code: codes(packed), offset: packed.offset, step: packed.step }));
    this.diagonal = new Float32Array(mean.length);
    for (let i = 0; i < mean.length; i++) this.diagonal[i] = std[i] * std[i];
    this.directions.forEach((direction, k) => {
      for (let i = 0; i < mean.length; i++) this.diagonal[i] -= this.excess[k] * this.at(direction, i) ** 2;
    });
    for (let i = 0; i < mean.length; i++) this.diagonal[i] = Math.max(0, this.diagonal[i]);
  }

  /* Kernel at a lag within its window. */
  rho(dz, dy, dx) {
    const [, height, width] = this.kernel.shape, [hz, hy, hx] = this.half;
    return this.kernel.values[((hz + dz) * height + hy + dy) * width + hx + dx];
  }

  at(direction, i) {
    return direction.offset + direction.step * direction.code[i];
  }

  /* sum over k of t_k sqrt(variance_k) u_k, for `count` pixels from `start`. */
  change(t, start, count) {
    const result = new Float32Array(count);
    t.forEach((amount, k) => {
      if (amount === 0 || !this.directions[k]) return;
      const { code, offset, step } = this.directions[k];
      const scale = amount * Math.sqrt(this.variances[k]);
      for (let i = 0; i < count; i++) result[i] += scale * (offset + step * code[start + i]);
    });
    return result;
  }

  /* Correlation of one pixel with `count` pixels from `start`. */
  correlation(pixel, start, count) {
    const result = new Float32Array(count);
    this.directions.forEach((direction, k) => {
      const scale = this.excess[k] * this.at(direction, pixel);
      const { code, offset, step } = direction;
      for (let i = 0; i < count; i++) result[i] += scale * (offset + step * code[start + i]);
    });
    this.addLocal(result, pixel, start, count);
    for (let i = 0; i < count; i++) {
      const size = this.std[pixel] * this.std[start + i];
      result[i] = size > 0 ? Math.max(-1, Math.min(1, result[i] / size)) : NaN;
    }
    return result;
  }

  /* Add sqrt(d_i d_j) rho(j - i) for the pixels j around pixel i. */
  addLocal(result, i, start, count) {
    const [, depth, height, width] = this.shape, [hz, hy, hx] = this.half;
    const x = i % width, y = Math.floor(i / width) % height, z = Math.floor(i / (width * height)) % depth;
    for (let dz = -Math.min(hz, z); dz <= Math.min(hz, depth - 1 - z); dz++) {
      for (let dy = -Math.min(hy, y); dy <= Math.min(hy, height - 1 - y); dy++) {
        for (let dx = -Math.min(hx, x); dx <= Math.min(hx, width - 1 - x); dx++) {
          const j = i + (dz * height + dy) * width + dx;
          if (j < start || j >= start + count) continue;
          result[j - start] += Math.sqrt(this.diagonal[i] * this.diagonal[j]) * this.rho(dz, dy, dx);
        }
      }
    }
  }

  /* a' R a for numbers a on a rectangle of a plane, row by row: the kernel times the autocorrelation of a. */
  local(a, width) {
    const height = a.length / width, [, hy, hx] = this.half;
    let total = 0;
    for (let dy = 0; dy <= Math.min(hy, height - 1); dy++) {
      for (let dx = dy ? -Math.min(hx, width - 1) : 0; dx <= Math.min(hx, width - 1); dx++) {
        const rho = this.rho(0, dy, dx) * (dy || dx ? 2 : 1);
        if (rho === 0) continue;
        const first = Math.max(0, -dx), last = width - Math.max(0, dx), lag = dy * width + dx;
        let sum = 0;
        for (let y = 0; y < height - dy; y++) {
          for (let i = y * width + first; i < y * width + last; i++) sum += a[i] * a[i + lag];
        }
        total += rho * sum;
      }
    }
    return total;
  }

  /* Weighted mean of the pixels of a rectangle, row by row, and its standard deviation; weights sum to one. */
  region(pixels, weights, width) {
    let mean = 0;
    pixels.forEach((i, j) => { mean += weights[j] * this.mean[i]; });
    let variance = this.local(Float64Array.from(pixels, (i, j) => weights[j] * Math.sqrt(this.diagonal[i])), width);
    this.directions.forEach((direction, k) => {
      let projection = 0;
      pixels.forEach((i, j) => { projection += weights[j] * this.at(direction, i); });
      variance += this.excess[k] * projection ** 2;
    });
    const std = Math.sqrt(Math.max(0, variance)), z = 1.6448536269514722;
    return { mean, std, low: mean - z * std, high: mean + z * std };
  }
}
