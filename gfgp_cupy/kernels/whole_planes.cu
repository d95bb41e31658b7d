// Windows that are whole planes: MEMBERS threads, some of a block or all, share one window, and add
// up what each found of it. Any window function, both memory formats.
//
// A thread holds its elements of a window in registers, so that each is read once; planes too large
// for that (HELD = 0) are read again for each sum: from a cache where what the running blocks read
// fits into one (of channels_last 56 x 56 into the first-level one). Contiguous: a window's threads
// lie beside each other and take VECTOR neighbouring elements at once, and blocks of small planes
// take BLOCK / MEMBERS of them. channels_last: LANES threads lie side by side along the channels,
// each with a window, and the block's rows of lanes share out the pixels. A row of lanes reads at
// least 32 bytes that follow each other.
//
// Traffic, with re-reading left out: forward X + O (X + 2 O with spread), backward 2 X + O.
//
// Macros: CHANNELS_LAST; BLOCK, threads, and MEMBERS, both powers of two; LANES (contiguous: 1);
//         VECTOR (channels_last: 1); ITEMS, packs of VECTOR elements that a thread has of a plane
//         at most; HELD; and WRITE_* and ADD_MEAN_GRAD: what is wanted.

#define INFINITY_OF ((acc_t)__int_as_float(0x7f800000))

// Left alone, the compiler spills registers of large blocks to make room for a second one.
#if !HELD
#undef BOUNDS
#define BOUNDS(threads) __launch_bounds__(threads, 1)
#endif

// Threads whose windows are the same are STRIDE apart, among GROUP that follow each other.
#define STRIDE LANES
#define GROUP (LANES * MEMBERS)
#define WARPS (GROUP / 32)

struct Sizes {
  index_t planes, channels, packs;  // a plane's packs: of VECTOR elements, or pixels
  acc_t elements, taps, factor;     // a plane's; a power of two from that on, and its inverse
};

// Of many elements, what one pass makes of each (an exponential, an address) is made anew for the
// next: there are no registers to keep it in, which the compiler would try.
#define FORGETS (ITEMS * VECTOR * sizeof(scalar_t) > 64)

#if defined(GFGP_HOST)
#define FORGET(constraint, value)
#else
#define FORGET(constraint, value) \
  if constexpr (FORGETS) asm volatile("" : constraint(value))
#endif

__device__ __forceinline__ int made_anew(int number) {
  FORGET("+r", number);
  return number;
}

__device__ __forceinline__ long long made_anew(long long number) {
  FORGET("+l", number);
  return number;
}

__device__ __forceinline__ Pack<VECTOR> made_anew(Pack<VECTOR> pack) {
#if defined(DTYPE_FLOAT64)
#pragma unroll
  for (int k = 0; k < VECTOR; ++k) FORGET("+d", pack.element[k]);
#elif defined(DTYPE_FLOAT32)
#pragma unroll
  for (int k = 0; k < VECTOR; ++k) FORGET("+f", pack.element[k]);
#elif VECTOR == 1
  FORGET("+h", pack.element[0]);
#else
#pragma unroll
  for (int k = 0; k < VECTOR / 2; ++k) FORGET("+r", pack.pair[k]);
#endif
  return pack;
}

// Where the thread's elements lie.
struct Own {
  const scalar_t* first;       // its own first pack
  index_t plane;               // of its window, in the order [n, c]
  index_t member, packs, step; // its place among the members; elements from pack to pack
  bool active;                 // whether it has elements of its own, not repeated from others
  Pack<VECTOR> held[HELD ? ITEMS : 1];

  // Of every pack but the last the host makes sure.
  __device__ __forceinline__ bool has(int item) const {
    return item < ITEMS - 1 || member + item * MEMBERS < packs;
  }

  // Calls visit(pack, offset from the first one) for each.
  template <class Visit>
  __device__ __forceinline__ void for_each_pack(const Visit& visit) const {
#if HELD
    const index_t apart = MEMBERS * made_anew(step);
#pragma unroll
    for (int item = 0; item < ITEMS; ++item) {
      if (has(item)) visit(made_anew(held[item]), item * apart);
    }
#else
    for (index_t item = 0; member + item * MEMBERS < packs; ++item) {
      const index_t at = item * MEMBERS * step;
      visit(load_pack<VECTOR>(first + at), at);
    }
#endif
  }
};

__device__ __forceinline__ Own own_elements(const scalar_t* input, const Sizes& sizes) {
  Own own;
  own.packs = sizes.packs;
  index_t at;
  if (CHANNELS_LAST) {
    const index_t blocks = (sizes.channels + LANES - 1) / LANES;
    const index_t n = (index_t)blockIdx.x / blocks;
    const index_t begin = ((index_t)blockIdx.x - n * blocks) * LANES;
    const index_t channel = begin + threadIdx.x % LANES;
    own.active = channel < sizes.channels;
    own.plane = n * sizes.channels + (own.active ? channel : begin);
    own.member = threadIdx.x / LANES;
    own.step = sizes.channels;
    at = n * sizes.channels * sizes.packs + (own.plane - n * sizes.channels);
  } else {
    const index_t plane = (index_t)blockIdx.x * (BLOCK / MEMBERS) + threadIdx.x / MEMBERS;
    own.active = plane < sizes.planes;
    own.plane = own.active ? plane : sizes.planes - 1;
    own.member = threadIdx.x % MEMBERS;
    own.step = VECTOR;
    at = own.plane * sizes.packs * VECTOR;
  }
  own.first = input + at + own.member * own.step;
#if HELD
#pragma unroll
  for (int item = 0; item < ITEMS; ++item) {
    if (own.has(item)) own.held[item] = load_pack<VECTOR>(own.first + item * MEMBERS * own.step);
  }
#endif
  return own;
}

#if HELD

struct Sum {
  acc_t total = 0;
  __device__ __forceinline__ void add(acc_t term) { total += term; }
};

#else

using Sum = CompensatedSum;  // a thread may have thousands of elements

#endif

// What `combine` makes of the parts of all threads with the same window, the same in each of them.
// All threads of the block must call it. `partial`, in shared memory, has STRIDE numbers a warp.
template <class Combine>
__device__ __forceinline__ acc_t of_all_members(
    acc_t part, acc_t* partial, const Combine& combine) {
#pragma unroll
  for (int step = STRIDE; step < (GROUP < 32 ? GROUP : 32); step *= 2) {
    part = combine(part, __shfl_xor_sync(0xffffffffu, part, step));
  }
#if WARPS > 1
  constexpr int parts = WARPS * STRIDE;
  const int lane = threadIdx.x % 32;
  if (lane < STRIDE) partial[threadIdx.x / 32 * STRIDE + lane] = part;
  __syncthreads();
  part = partial[lane % parts];
#pragma unroll
  for (int at = 32; at < parts; at += 32) part = combine(part, partial[lane + at]);
#pragma unroll
  for (int step = STRIDE; step < (parts < 32 ? parts : 32); step *= 2) {
    part = combine(part, __shfl_xor_sync(0xffffffffu, part, step));
  }
  __syncthreads();
#endif
  return part;
}

// Whether `condition` holds for a thread of those that wait for each other. All must call it.
__device__ __forceinline__ bool of_any_member(bool condition, acc_t* partial) {
  bool any = __any_sync(0xffffffffu, condition);
#if WARPS > 1
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = any;
  __syncthreads();
  any = false;
#pragma unroll
  for (int warp = 0; warp < WARPS; ++warp) any = any || partial[warp] != 0;
  __syncthreads();
#endif
  return any;
}

// The thread's window.
struct PlaneWindow {
  static constexpr bool IN_REGISTERS = false;
  const Own& own;
  const Sizes& sizes;
  acc_t* partial;

  template <class Visit>
  __device__ __forceinline__ void for_each(const Visit& visit) const {
    own.for_each_pack([&](const Pack<VECTOR>& pack, index_t at) {
#pragma unroll
      for (int k = 0; k < VECTOR; ++k) visit(widen_from(pack, k));
    });
  }

  __device__ __forceinline__ acc_t count() const { return sizes.elements; }

  __device__ __forceinline__ bool any(bool condition) const {
    return of_any_member(condition, partial);
  }

  template <class Term>
  __device__ __forceinline__ acc_t sum(const Term& term) const {
    Sum own_part;
    for_each([&](acc_t x) { own_part.add(term(x)); });
    return of_all_members(own_part.total, partial, [](acc_t a, acc_t b) { return a + b; });
  }

  template <class Term>
  __device__ __forceinline__ acc_t mean(const Term& term) const {
    const acc_t scaled = sum([&](acc_t x) { return sizes.factor * term(x); });
    return scaled * (sizes.taps * reciprocal(sizes.elements));
  }

  __device__ __forceinline__ acc_t largest() const {
    acc_t result = -INFINITY_OF;
    for_each([&](acc_t x) { result = max(result, x); });
    return of_all_members(result, partial, [](acc_t a, acc_t b) { return max(a, b); });
  }

  __device__ __forceinline__ acc_t smallest() const {
    acc_t result = INFINITY_OF;
    for_each([&](acc_t x) { result = min(result, x); });
    return of_all_members(result, partial, [](acc_t a, acc_t b) { return min(a, b); });
  }
};

#define SIZES long long planes, long long channels, long long packs, long long elements,          \
      long long taps, long long lam_n, long long lam_c
#define OWN_SIZES                                                                                 \
  {                                                                                               \
    (index_t)planes, (index_t)channels, (index_t)packs, (acc_t)elements, (acc_t)taps,             \
        reciprocal((acc_t)taps)                                                                   \
  }

// What is made of the parameter of the window of `plane`.
__device__ __forceinline__ Theta theta_at(
    const acc_t* lam, index_t plane, index_t channels, long long lam_n, long long lam_c) {
  const index_t n = plane / channels;
  return theta_of(load(lam + n * lam_n + (plane - n * channels) * lam_c));
}

#if !WRITE_GRAD_INPUT && !WRITE_GRAD_LAM

// Reads X and lam, writes O (2 O with WRITE_SPREAD).
extern "C" __global__ void BOUNDS(BLOCK) KERNEL(whole_planes_forward)(
    const scalar_t* __restrict__ input, const acc_t* __restrict__ lam,
    scalar_t* __restrict__ output, scalar_t* __restrict__ spread, SIZES) {
  extern __shared__ __align__(16) unsigned char smem[];
  const Sizes sizes = OWN_SIZES;
  const Own own = own_elements(input, sizes);
  const PlaneWindow window = {own, sizes, reinterpret_cast<acc_t*>(smem)};
  const Theta theta = theta_at(lam, own.plane, sizes.channels, lam_n, lam_c);
  const Summary summary = summary_of(window, theta);
  const bool writes = own.active && own.member == 0;
  if (writes) store(output + own.plane, narrow(output_of(summary, theta)));
#if WRITE_SPREAD
  const scalar_t kept = spread_of(sensitivity_of(window, summary, theta));
  if (writes) store(spread + own.plane, kept);
#endif
}

#else

// Reads X, O and lam, writes X. WRITE_GRAD_LAM: each window's part of lam's gradient, in
// grad_lam[n, c]. ADD_MEAN_GRAD: adds mean_grad[n, c] to each element.
extern "C" __global__ void BOUNDS(BLOCK) KERNEL(whole_planes_backward)(
    const scalar_t* __restrict__ grad_output, const scalar_t* __restrict__ input,
    const acc_t* __restrict__ lam, const acc_t* __restrict__ mean_grad,
    scalar_t* __restrict__ grad_input, acc_t* __restrict__ grad_lam, SIZES) {
  extern __shared__ __align__(16) unsigned char smem[];
  const Sizes sizes = OWN_SIZES;
  const Own own = own_elements(input, sizes);
  const PlaneWindow window = {own, sizes, reinterpret_cast<acc_t*>(smem)};
  const Theta theta = theta_at(lam, own.plane, sizes.channels, lam_n, lam_c);
  const Summary summary = summary_of(window, theta);
  const acc_t grad = widen(load(grad_output + own.plane));
#if WRITE_GRAD_LAM
  const acc_t sensitivity = sensitivity_of(window, summary, theta);
  if (own.active && own.member == 0) store(grad_lam + own.plane, grad * sensitivity);
#endif
#if WRITE_GRAD_INPUT
  const Message message = message_of(window, summary, theta, grad);
  const acc_t added = ADD_MEAN_GRAD ? load(mean_grad + own.plane) : 0;
  if (!own.active) return;
  scalar_t* to = grad_input + (own.first - input);
  own.for_each_pack([&](const Pack<VECTOR>& pack, index_t at) {
    acc_t gradient[VECTOR];
#pragma unroll
    for (int k = 0; k < VECTOR; ++k) {
      gradient[k] = received(widen_from(pack, k), message, theta) + added;
    }
    store_pack(to + at, narrow_pack(gradient));
  });
#endif
}

#endif
