// How blocks share out contiguous planes of windows that tile them.
//
// A group is VECTOR neighbouring windows of a row; rows of groups are counted on over planes: so
// lie they in memory. A block takes `most` rows that follow each other, `turn` of them side by side
// with a thread for each group, and a thread ITEMS of them, `turn` rows apart, before it computes.
//
// Macros: VECTOR, ITEMS; CHUNKED: whether a block's rows are one of a plane's `chunks` chunks.

#define MOST_THREADS 256

// What the host tells; planes.py says of each number what it is.
#define SIZES                                                                                     \
  long long channels, long long by_channels, long long rows, long long rows_h,                    \
      long long by_rows_h, long long most, long long chunks, long long by_chunks, long long turn, \
      long long groups_w, long long by_groups_w, long long threads, long long passes,             \
      long long table, long long lam_n, long long lam_c, long long lam_h, long long lam_w

struct Deal {
  index_t begin, end;    // the block's rows
  index_t plane, count;  // the first of the planes that they lie in, and how many these are
  index_t chunk;         // which of the plane's
};

__device__ __forceinline__ Deal block_deal(
    index_t rows, index_t rows_h, long long by_rows_h, index_t most, index_t chunks,
    long long by_chunks) {
  Deal deal;
  const index_t block = blockIdx.x;
  if (CHUNKED) {
    deal.plane = divide(block, chunks, by_chunks);
    deal.count = 1;
    deal.chunk = block - deal.plane * chunks;
    const index_t first = deal.chunk * most;
    deal.begin = deal.plane * rows_h + first;
    deal.end = deal.begin + min(most, rows_h - first);
  } else {
    deal.begin = block * most;
    deal.end = deal.begin + min(most, rows - deal.begin);
    deal.plane = divide(deal.begin, rows_h, by_rows_h);
    deal.count = divide(deal.end - 1, rows_h, by_rows_h) - deal.plane + 1;
    deal.chunk = 0;
  }
  return deal;
}
