/* Uncertainty: covariance U L U' + D of the pixels shown, with U stored as integers.
   D is what the exact standard deviation leaves after U L U', so that every pixel's own variance stays exact. */

class Covariance {
  constructor(data, mean, std) {
    this.mean = mean;
    this.std = std;
    this.variances = data.variances;
    this.directions = data.directions.map((packed) => ({ code: codes(packed), offset: packed.offset, step: packed.step }));
    this.diagonal = new Float32Array(mean.length);
    for (let i = 0; i < mean.length; i++) this.diagonal[i] = std[i] * std[i];
    this.directions.forEach((direction, k) => {
      for (let i = 0; i < mean.length; i++) this.diagonal[i] -= this.variances[k] * this.at(direction, i) ** 2;
    });
    for (let i = 0; i < mean.length; i++) this.diagonal[i] = Math.max(0, this.diagonal[i]);
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
      const scale = this.variances[k] * this.at(direction, pixel);
      const { code, offset, step } = direction;
      for (let i = 0; i < count; i++) result[i] += scale * (offset + step * code[start + i]);
    });
    if (pixel >= start && pixel < start + count) result[pixel - start] += this.diagonal[pixel];
    for (let i = 0; i < count; i++) {
      const size = this.std[pixel] * this.std[start + i];
      result[i] = size > 0 ? Math.max(-1, Math.min(1, result[i] / size)) : NaN;
    }
    return result;
  }

  /* Weighted mean of pixels and its standard deviation; weights sum to one. */
  region(pixels, weights) {
    let mean = 0, variance = 0;
    pixels.forEach((i, j) => {
      mean += weights[j] * this.mean[i];
      variance += weights[j] ** 2 * this.diagonal[i];
    });
    this.directions.forEach((direction, k) => {
      let projection = 0;
      pixels.forEach((i, j) => { projection += weights[j] * this.at(direction, i); });
      variance += this.variances[k] * projection ** 2;
    });
    const std = Math.sqrt(variance), z = 1.6448536269514722;
    return { mean, std, low: mean - z * std, high: mean + z * std };
  }
}
