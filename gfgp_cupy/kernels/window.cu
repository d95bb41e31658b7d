// One pooling window of any size: where it lies.
//
// Macros: CHANNELS_LAST (0 or 1). Everything else is told at run time.

struct Planes {
  index_t channels, height, width, out_h, out_w;
  index_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
  acc_t taps, factor;  // a power of two from the window's number of elements on, and its inverse
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

// a / b of numbers that are not negative: unsigned, in fewer instructions.
__device__ __forceinline__ int ratio(int a, int b) { return (unsigned)a / (unsigned)b; }
__device__ __forceinline__ long long ratio(long long a, long long b) {
  return (unsigned long long)a / (unsigned long long)b;
}

// Takes the place along an axis of `size` out of an offset, of which the place on others is left.
__device__ __forceinline__ index_t take_place(index_t& offset, index_t size) {
  const index_t left = ratio(offset, size), place = offset - left * size;
  offset = left;
  return place;
}

// The coordinates of the element at `offset` in memory, of a dense tensor with planes of
// height x width.
__device__ __forceinline__ Position position_at(
    const Planes& planes, index_t offset, index_t height, index_t width) {
  Position at;
  if (CHANNELS_LAST) {
    at.c = take_place(offset, planes.channels);
    at.w = take_place(offset, width);
    at.h = take_place(offset, height);
  } else {
    at.w = take_place(offset, width);
    at.h = take_place(offset, height);
    at.c = take_place(offset, planes.channels);
  }
  at.n = offset;
  return at;
}

struct Window {
  Position at;                             // of its output
  const scalar_t* plane;                   // that it lies in
  index_t h_begin, h_end, w_begin, w_end;  // its elements inside the plane
};

// The window whose output lies at `offset` in memory.
__device__ __forceinline__ Window window_at(
    const scalar_t* input, const Planes& planes, index_t offset) {
  const Position at = position_at(planes, offset, planes.out_h, planes.out_w);
  const index_t top = at.h * planes.stride_h - planes.padding_h;
  const index_t left = at.w * planes.stride_w - planes.padding_w;
  Window window;
  window.at = at;
  window.plane = input + plane_offset(planes, at.n, at.c, planes.height, planes.width);
  window.h_begin = max(top, (index_t)0);
  window.w_begin = max(left, (index_t)0);
  window.h_end = min(top + planes.kernel_h, planes.height);
  window.w_end = min(left + planes.kernel_w, planes.width);
  return window;
}

__device__ __forceinline__ index_t elements_of(const Window& window) {
  return (window.h_end - window.h_begin) * (window.w_end - window.w_begin);
}

// Calls visit(x) for each element of the window, row by row.
template <class Visit>
__device__ __forceinline__ void for_each_element(
    const Window& window, const Planes& planes, const Visit& visit) {
  const index_t row = row_step(planes), column = column_step(planes);
  for (index_t h = window.h_begin; h < window.h_end; ++h) {
    for (index_t w = window.w_begin; w < window.w_end; ++w) {
      visit(widen(load(window.plane + h * row + w * column)));
    }
  }
}
