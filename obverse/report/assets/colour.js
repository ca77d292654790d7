/* Colour maps, perceptually uniform, each from a few control points (viridis and magma: van der Walt and Smith, CC0;
   the diverging map was made with lightness linear in CIELAB on both sides of a neutral middle). */

const MAPS = {
  grey: ["#000000", "#1b1b1b", "#303030", "#474747", "#5e5e5e", "#777777", "#919191", "#ababab", "#c6c6c6", "#e2e2e2", "#ffffff"],
  viridis: ["#440154", "#482475", "#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26", "#fde725"],
  magma: ["#000004", "#140e36", "#3b0f70", "#641a80", "#8c2981", "#b73779", "#de4968", "#f7705c", "#fe9f6d", "#fecf92", "#fcfdbf"],
  diverging: ["#004572", "#0066a4", "#4c88c4", "#8aaad5", "#becee6", "#f3f3f3", "#e8c6be", "#d49a8d", "#bd6f5f", "#a34433", "#860f09"],
};
const MISSING = 0xff8a7f7f;

const tables = {};
function table(name) {
  if (!tables[name]) {
    const points = MAPS[name].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    const lut = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const place = (i / 255) * (points.length - 1), left = Math.min(points.length - 2, Math.floor(place));
      const [r, g, b] = [0, 1, 2].map((c) =>
        Math.round(points[left][c] + (place - left) * (points[left + 1][c] - points[left][c])));
      lut[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    tables[name] = lut;
  }
  return tables[name];
}

/* Numbers to an image of the same size. */
function colourise(values, width, height, map, low, high) {
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const lut = table(map), scale = 255.999 / (high - low);
  for (let i = 0; i < pixels.length; i++) {
    const place = (values[i] - low) * scale;
    pixels[i] = place !== place ? MISSING : lut[place <= 0 ? 0 : place >= 255 ? 255 : place | 0];
  }
  return image;
}

function drawBar(canvas, map) {
  const ramp = Float32Array.from({ length: 256 }, (_, i) => i);
  canvas.width = 256;
  canvas.height = 1;
  canvas.getContext("2d").putImageData(colourise(ramp, 256, 1, map, 0, 255), 0, 0);
}
