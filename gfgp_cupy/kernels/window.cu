// One pooling window: where it lies, and its softmax sums.
//
// Macros: KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, PADDING_H, PADDING_W; CHANNELS_LAST (0 or 1).
// Sums are taken relative to a reference element r of the window, its maximum (its minimum where
// lam < 0), so that every weight is at most 1 and the mean cannot leave the window's range; and
// in powers of two: lam is scaled by log2(e) once.

#define LOG2_E ((acc_t)1.4426950408889634074)

struct Planes {
  index_t channels, height, width, out_h, out_w;
};

// Element steps through a plane of the input.
__device__ __forceinline__ index_t column_step(const Planes& planes) {
  return CHANNELS_LAST ? planes.channels : 1;
}

__device__ __forceinline__ index_t row_step(const Planes& planes) {
  return planes.width * column_step(planes);
}

// Offset of element (n, c, 0, 0) of a tensor with planes of height x width.
__device__ __forceinline__ index_t plane_offset(
    const Planes& planes, index_t n, index_t c, index_t height, index_t width) {
  return CHANNELS_LAST ? n * height * width * planes.channels + c
                       : (n * planes.channels + c) * height * width;
}

struct Position {
  index_t n, c, h, w;
};

// The coordinates of the element at `offset` in memory, of a dense tensor with planes of
// height x width.
__device__ __forceinline__ Position position_at(
    const Planes& planes, index_t offset, index_t height, index_t width) {
  Position at;
  if (CHANNELS_LAST) {
    at.c = offset % planes.channels;
    offset /= planes.channels;
    at.w = offset % width;
    offset /= width;
    at.h = offset % height;
    at.n = offset / height;
  } else {
    at.w = offset % width;
    offset /= width;
    at.h = offset % height;
    offset /= height;
    at.c = offset % planes.channels;
    at.n = offset / planes.channels;
  }
  return at;
}

struct Bounds {
  index_t h_begin, h_end, w_begin, w_end;  // the elements of the window inside the input
};

__device__ __forceinline__ Bounds window_bounds(
    const Planes& planes, index_t out_row, index_t out_column) {
  const index_t top = out_row * STRIDE_H - PADDING_H;
  const index_t left = out_column * STRIDE_W - PADDING_W;
  Bounds bounds;
  bounds.h_begin = top > 0 ? top : 0;
  bounds.w_begin = left > 0 ? left : 0;
  bounds.h_end = top + KERNEL_H < planes.height ? top + KERNEL_H : planes.height;
  bounds.w_end = left + KERNEL_W < planes.width ? left + KERNEL_W : planes.width;
  return bounds;
}

struct Sums {
  acc_t reference;  // r
  acc_t total;      // sum of weights 2^(scale (x - r))
  acc_t mean;       // y = r + (weighted sum of x - r) / total
};

__device__ __forceinline__ Sums window_sums(
    const scalar_t* plane, const Planes& planes, const Bounds& bounds, acc_t scale) {
  const index_t row = row_step(planes), column = column_step(planes);
  Sums sums;
  sums.reference = widen(load(plane + bounds.h_begin * row + bounds.w_begin * column));
  for (index_t h = bounds.h_begin; h < bounds.h_end; ++h) {
    for (index_t w = bounds.w_begin; w < bounds.w_end; ++w) {
      const acc_t x = widen(load(plane + h * row + w * column));
      if (scale < 0 ? x < sums.reference : x > sums.reference) sums.reference = x;
    }
  }
  acc_t weighted = 0;
  sums.total = 0;
  for (index_t h = bounds.h_begin; h < bounds.h_end; ++h) {
    for (index_t w = bounds.w_begin; w < bounds.w_end; ++w) {
      const acc_t deviation = widen(load(plane + h * row + w * column)) - sums.reference;
      const acc_t weight = power_of_two(scale * deviation);
      sums.total += weight;
      weighted += weight * deviation;
    }
  }
  sums.mean = sums.reference + weighted * reciprocal(sums.total);
  return sums;
}

__device__ __forceinline__ acc_t window_variance(
    const scalar_t* plane, const Planes& planes, const Bounds& bounds, acc_t scale,
    const Sums& sums) {
  const index_t row = row_step(planes), column = column_step(planes);
  acc_t variance = 0;
  for (index_t h = bounds.h_begin; h < bounds.h_end; ++h) {
    for (index_t w = bounds.w_begin; w < bounds.w_end; ++w) {
      const acc_t x = widen(load(plane + h * row + w * column));
      const acc_t weight = power_of_two(scale * (x - sums.reference));
      variance += weight * (x - sums.mean) * (x - sums.mean);
    }
  }
  return variance * reciprocal(sums.total);
}
