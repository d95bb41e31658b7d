// A window of more than 25 elements, of overlapping.cu, for large_softmax.cu and large_function.cu.

#define LARGE_WINDOW

// It needs most of a thread's registers.
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, 1)

// Its elements inside the plane.
struct Inside {
  unsigned rows, columns;  // a bit for each of the window's
  int height, width;       // how many they are
  const scalar_t* begin;   // where the first element lies in the ring of rows,
  const scalar_t* end;     // which ends here
  index_t pitch, ring;     // elements from row to row, and of the whole ring
};
