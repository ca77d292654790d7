/* Arrays: base64 integers back to numbers. value = offset + step * code; the highest code means "not a number".
   Small arrays that must be exact come as floats (32 bits). */

function codes(packed) {
  const text = atob(packed.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  if (packed.bits === 32) return new Float32Array(bytes.buffer);
  return packed.bits === 16 ? new Uint16Array(bytes.buffer) : bytes;
}

function decode(packed) {
  const code = codes(packed);
  if (packed.bits === 32) return code;
  const missing = packed.bits === 16 ? 65535 : 255;
  const values = new Float32Array(code.length);
  for (let i = 0; i < code.length; i++) values[i] = code[i] === missing ? NaN : packed.offset + packed.step * code[i];
  return values;
}

/* Limits that leave out a share of the values at each end, found on at most 100,000 of them. */
function percentiles(values, share) {
  const stride = Math.max(1, Math.floor(values.length / 100000));
  const sample = [];
  for (let i = 0; i < values.length; i += stride) if (Number.isFinite(values[i])) sample.push(values[i]);
  if (!sample.length) return [0, 1];
  const sorted = Float32Array.from(sample).sort();
  const low = sorted[Math.floor(share * (sorted.length - 1))];
  const high = sorted[Math.ceil((1 - share) * (sorted.length - 1))];
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

/* Four significant digits, without a needless exponent, with a true minus sign. */
function show(value, digits = 4) {
  if (!Number.isFinite(value)) return "not a number";
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e7 || size < 1e-4)
    ? value.toExponential(digits - 1)
    : size >= 10 ** (digits - 1) ? value.toFixed(0) : String(Number(value.toPrecision(digits)));
  return text.replace("-", "\u2212");
}
