// Tensors as the graphs return them: {dims, data}, the last axis running fastest.

/** @typedef {{dims: number[], data: Float32Array}} Tensor */

/**
 * Take a part of a tensor by the first indices: `part(weights, layer, head)` is (query_len, key_len).
 * @param {Tensor} tensor
 * @param {...number} indices
 * @returns {Tensor} It shares the numbers with the whole.
 */
export function part(tensor, ...indices) {
  let { dims } = tensor;
  let start = 0;
  let size = tensor.data.length;
  for (const index of indices) {
    size /= dims[0];
    start += index * size;
    dims = dims.slice(1);
  }
  return { dims, data: tensor.data.subarray(start, start + size) };
}

/** Take a number of a matrix. @param {Tensor} matrix @returns {number} */
export const at = (matrix, row, column) => matrix.data[row * matrix.dims[1] + column];

/** Add two tensors. @param {Tensor} left @param {Tensor} right @returns {Tensor} */
export const add = (left, right) => ({ dims: left.dims, data: left.data.map((value, i) => value + right.data[i]) });

/** Average a tensor over its first axis. @param {Tensor} tensor @returns {Tensor} */
export function mean(tensor) {
  const count = tensor.dims[0];
  const total = new Float32Array(tensor.data.length / count);
  for (let i = 0; i < count; i++)
    part(tensor, i).data.forEach((value, j) => {
      total[j] += value / count;
    });
  return { dims: tensor.dims.slice(1), data: total };
}

/** Multiply two rows and add up. @param {Float32Array} left @param {Float32Array} right */
export const dot = (left, right) => left.reduce((sum, value, i) => sum + value * right[i], 0);

/** The mean and the standard deviation of numbers. @param {Float32Array} values @returns {[number, number]} */
export function spread(values) {
  const middle = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / values.length;
  return [middle, Math.sqrt(variance)];
}

/** Write a number with two digits after the point, and a minus sign that is one. @param {number} value */
export function figure(value, digits = 2) {
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** Write a share in per cent. @param {number} share From 0 to 1. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "<0.1 %";
  return `${(100 * share).toFixed(share > 0.9995 || share === 0 ? 0 : 1)} %`;
}
