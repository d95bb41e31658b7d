// One pooling window with a depth, of any size: where it lies. What window.cu is for planes.
//
// Macros: CHANNELS_LAST (0 or 1). Everything else is told at run time.

#undef NAME_OF_KERNEL
#define NAME_OF_KERNEL(pooling, pass) pooling##_pool3d_##pass

#define AXES 3  // depth, height, width

struct Sizes {
  index_t of[AXES];
};

// `Planes` are volumes here; streamed_function.cu serves both.
struct Planes {
  index_t channels;
  Sizes size, out, kernel, stride, padding;
  acc_t taps, factor;  // a power of two from the window's number of elements on, and its inverse
};

struct Position {
  index_t n, c;
  Sizes at;
};

// The coordinates of the element at `offset` in memory, of a dense tensor with volumes of `size`.
__device__ __forceinline__ Position position_at(
    const Planes& planes, index_t offset, const Sizes& size) {
  Position position;
  if (CHANNELS_LAST) {
    position.c = offset % planes.channels;
    offset /= planes.channels;
  }
#pragma unroll
  for (int axis = AXES - 1; axis >= 0; --axis) {
    position.at.of[axis] = offset % size.of[axis];
    offset /= size.of[axis];
  }
  if (!CHANNELS_LAST) {
    position.c = offset % planes.channels;
    offset /= planes.channels;
  }
  position.n = offset;
  return position;
}

// Elements from one of a row to the next.
__device__ __forceinline__ index_t column_step(const Planes& planes) {
  return CHANNELS_LAST ? planes.channels : 1;
}

// Offset of element (n, c, 0, 0, 0) of a tensor with volumes of `size`.
__device__ __forceinline__ index_t volume_offset(
    const Planes& planes, const Position& at, const Sizes& size) {
  const index_t elements = size.of[0] * size.of[1] * size.of[2];
  return CHANNELS_LAST ? at.n * elements * planes.channels + at.c
                       : (at.n * planes.channels + at.c) * elements;
}

struct Window {
  Position at;                // of its output
  const scalar_t* volume;     // that it lies in
  Sizes begin, end;           // its elements inside the volume
};

// The window whose output lies at `offset` in memory.
__device__ __forceinline__ Window window_at(
    const scalar_t* input, const Planes& planes, index_t offset) {
  Window window;
  window.at = position_at(planes, offset, planes.out);
  window.volume = input + volume_offset(planes, window.at, planes.size);
#pragma unroll
  for (int axis = 0; axis < AXES; ++axis) {
    const index_t first =
        window.at.at.of[axis] * planes.stride.of[axis] - planes.padding.of[axis];
    window.begin.of[axis] = max(first, (index_t)0);
    window.end.of[axis] = min(first + planes.kernel.of[axis], planes.size.of[axis]);
  }
  return window;
}

__device__ __forceinline__ index_t elements_of(const Window& window) {
  index_t count = 1;
#pragma unroll
  for (int axis = 0; axis < AXES; ++axis) count *= window.end.of[axis] - window.begin.of[axis];
  return count;
}

// Calls visit(x) for each element of the window, row by row.
template <class Visit>
__device__ __forceinline__ void for_each_element(
    const Window& window, const Planes& planes, const Visit& visit) {
  const index_t column = column_step(planes), row = planes.size.of[2] * column;
  const index_t slice = planes.size.of[1] * row;
  for (index_t d = window.begin.of[0]; d < window.end.of[0]; ++d) {
    for (index_t h = window.begin.of[1]; h < window.end.of[1]; ++h) {
      const scalar_t* first = window.volume + d * slice + h * row;
      for (index_t w = window.begin.of[2]; w < window.end.of[2]; ++w) {
        visit(widen(load(first + w * column)));
      }
    }
  }
}
