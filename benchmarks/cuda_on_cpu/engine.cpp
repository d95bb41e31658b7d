// Runs a kernel compiled with cuda_on_cpu.h: fibers, barriers, warp exchanges, memory checks.
//
// The threads of a block are fibers of one OS thread, and the blocks run one after the other.
// A thread runs until it waits at a barrier or a warp exchange, or returns; among those that
// can run, the launch's order chooses. A missing barrier then gives different results under
// different orders.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cuda_on_cpu.h"

constexpr int MAX_BLOCK = 1024;
constexpr int MAX_SHARED_BYTES = 48 * 1024;  // what every GPU grants without asking
constexpr int GUARD_BYTES = 4096;
constexpr int POISON = 0xff;  // a NaN in every floating-point type

uint3 threadIdx, blockIdx, blockDim, gridDim;
alignas(128) unsigned char smem[MAX_SHARED_BYTES + GUARD_BYTES];

namespace {

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_EXCHANGE, EXITED };

struct Thread {
  jmp_buf context;
  void* stack = nullptr;
  bool has_context = false;  // context holds a place in this thread's stack to go on from
  State state;
  const char* intrinsic;  // what it waits in
  GfgpPlace place;
  unsigned mask;  // and for a warp exchange
  uint64_t value;
  int source;
  uint64_t result;
};

// Who touched one byte of global memory in this launch; a thread's number counts from 1.
struct Shadow {
  uint32_t writer, reader;
  uint32_t block;  // of a sector's first byte: the last block that read the sector, plus 1
};
constexpr uint32_t SEVERAL = 0xffffffffu;
constexpr uint64_t SECTOR_BYTES = 32;  // what a GPU reads memory by

Thread threads[MAX_BLOCK];
int current;  // the running thread
jmp_buf scheduler;

GfgpLaunch* launch;
std::unordered_map<uint64_t, std::vector<Shadow>> shadows;  // by page of the address space
uint64_t shadow_page_number;
Shadow* shadow_page;  // the one last used
uint64_t random_state;
bool failed;
char failure[1024];

// ---------------------------------------------------------------- failures

void set_failure(const char* where, const char* format, va_list arguments) {
  failed = true;
  int used = snprintf(failure, sizeof failure, "block %u%s: ", blockIdx.x, where);
  vsnprintf(failure + used, sizeof failure - used, format, arguments);
}

__attribute__((format(printf, 1, 2))) void fail_block(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  set_failure("", format, arguments);
  va_end(arguments);
}

// Called on a fiber, which never runs again.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail_thread(const char* format, ...) {
  char where[32];
  snprintf(where, sizeof where, ", thread %d", current);
  va_list arguments;
  va_start(arguments, format);
  set_failure(where, format, arguments);
  va_end(arguments);
  _longjmp(scheduler, 1);
}

std::string place_of(int index) {
  const Thread& thread = threads[index];
  return "thread " + std::to_string(index) + " waits at " + thread.intrinsic + " in " +
         thread.place.file + ":" + std::to_string(thread.place.line);
}

// Whether two waiting threads made the same call.
bool together(const Thread& a, const Thread& b) {
  return a.place.line == b.place.line && !strcmp(a.place.file, b.place.file) &&
         !strcmp(a.intrinsic, b.intrinsic);
}

// ---------------------------------------------------------------- fibers

// Leave the running thread in `state`; returns when the scheduler resumes it.
void stop(State state) {
  threads[current].state = state;
  if (!_setjmp(threads[current].context)) _longjmp(scheduler, 1);
}

void fiber() {
  for (;;) {
    launch->call(launch->slots);
    stop(EXITED);
  }
}

[[noreturn]] void enter_fiber(Thread& thread) {
  constexpr size_t STACK_BYTES = 128 * 1024;
  if (!thread.stack) {
    size_t page = sysconf(_SC_PAGESIZE);
    thread.stack = mmap(nullptr, page + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (thread.stack == MAP_FAILED || mprotect(thread.stack, page, PROT_NONE)) {
      perror("no memory for the stack of a CUDA thread");
      abort();
    }
    thread.stack = (char*)thread.stack + page;
  }
  thread.has_context = true;
  static ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = thread.stack;
  start.uc_stack.ss_size = STACK_BYTES;
  makecontext(&start, fiber, 0);
  setcontext(&start);
  abort();
}

// Run a thread until it stops.
__attribute__((noinline)) void resume(int index) {
  current = index;
  threadIdx.x = index;
  if (_setjmp(scheduler)) return;
  if (threads[index].has_context) _longjmp(threads[index].context, 1);
  enter_fiber(threads[index]);
}

// ---------------------------------------------------------------- global memory

GfgpTensor* find_tensor(uint64_t address, uint64_t bytes) {
  for (int i = 0; i < launch->tensor_count; ++i) {
    GfgpTensor& tensor = launch->tensors[i];
    if (address >= tensor.begin && address + bytes <= tensor.begin + tensor.bytes) return &tensor;
  }
  return nullptr;
}

[[noreturn]] void fail_outside(const char* access, uint64_t address, int bytes) {
  const GfgpTensor* nearest = nullptr;
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < launch->tensor_count; ++i) {
    const GfgpTensor& tensor = launch->tensors[i];
    uint64_t end = tensor.begin + tensor.bytes;
    uint64_t distance = address < tensor.begin ? tensor.begin - address
                        : address > end        ? address - end
                                               : 0;
    if (distance < least) least = distance, nearest = &tensor;
  }
  if (!nearest) fail_thread("%s of %d bytes, but no argument is a tensor", access, bytes);
  fail_thread("%s of %d bytes out of bounds: at byte %lld of argument %lld, which has %llu bytes",
              access, bytes, (long long)(address - nearest->begin), nearest->argument,
              nearest->bytes);
}

[[noreturn]] void fail_race(const char* access, const char* other_access, uint32_t other,
                            const GfgpTensor& tensor, uint64_t address) {
  char who[64] = "several threads";
  if (other != SEVERAL)
    snprintf(who, sizeof who, "thread %u of block %u", (other - 1) % blockDim.x,
             (other - 1) / blockDim.x);
  fail_thread("race: %s at byte %llu of argument %lld, which %s %s in the same launch", access,
              address - tensor.begin, tensor.argument, who, other_access);
}

GfgpTensor& check_access(const char* access, uint64_t address, int bytes) {
  GfgpTensor* tensor = find_tensor(address, bytes);
  if (!tensor) fail_outside(access, address, bytes);
  bool must_align = bytes == 2 || bytes == 4 || bytes == 8 || bytes == 16;
  if (must_align && address % bytes)
    fail_thread("misaligned %s of %d bytes at byte %llu of argument %lld: the address is %llu "
                "modulo %d", access, bytes, address - tensor->begin, tensor->argument,
                (unsigned long long)(address % bytes), bytes);
  return *tensor;
}

Shadow& shadow_of(uint64_t address) {
  constexpr uint64_t PAGE_BYTES = 4096;
  uint64_t page = address / PAGE_BYTES;
  if (!shadow_page || page != shadow_page_number) {
    std::vector<Shadow>& shadow = shadows[page];
    shadow.resize(PAGE_BYTES);
    shadow_page = shadow.data();
    shadow_page_number = page;
  }
  return shadow_page[address % PAGE_BYTES];
}

uint32_t thread_number() { return blockIdx.x * blockDim.x + threadIdx.x + 1; }

// ---------------------------------------------------------------- scheduling

uint64_t next_random() {  // splitmix64
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Put 0 ... count-1 into the launch's order.
void put_in_order(int* indices, int count) {
  for (int i = 0; i < count; ++i) indices[i] = launch->order == 1 ? count - 1 - i : i;
  if (launch->order == 2)
    for (int i = count - 1; i > 0; --i) std::swap(indices[i], indices[next_random() % (i + 1)]);
}

unsigned lanes_in(int warp, State state) {
  unsigned lanes = 0;
  for (int lane = 0; lane < 32; ++lane)
    lanes |= (unsigned)(threads[warp * 32 + lane].state == state) << lane;
  return lanes;
}

// Give each lane of a complete group its result and let it run on.
void finish_exchange(int warp, unsigned group) {
  uint64_t ballot = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (group >> lane & 1) ballot |= (uint64_t)(threads[warp * 32 + lane].value != 0) << lane;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(group >> lane & 1)) continue;
    Thread& thread = threads[warp * 32 + lane];
    bool present = thread.source >= 0 && thread.source < 32 && (group >> thread.source & 1);
    thread.result = thread.source < 0 ? ballot
                    : present         ? threads[warp * 32 + thread.source].value
                                      : ~(uint64_t)0;
    thread.state = READY;
  }
}

void finish_complete_exchanges(int warp) {
  unsigned waiting = lanes_in(warp, AT_WARP_EXCHANGE), exited = lanes_in(warp, EXITED);
  while (waiting && !failed) {
    int first = warp * 32 + __builtin_ctz(waiting);
    unsigned mask = threads[first].mask, group = 0;
    for (int lane = 0; lane < 32; ++lane)
      if ((waiting >> lane & 1) && threads[warp * 32 + lane].mask == mask) group |= 1u << lane;
    waiting &= ~group;
    if (group != (mask & ~exited)) continue;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(group >> lane & 1)) continue;
      if (!together(threads[first], threads[warp * 32 + lane]))
        return fail_block("divergent: %s, %s", place_of(first).c_str(),
                          place_of(warp * 32 + lane).c_str());
    }
    finish_exchange(warp, group);
  }
}

void run_warp(int warp) {
  int lanes[32];
  put_in_order(lanes, 32);
  for (int lane : lanes) {
    int index = warp * 32 + lane;
    if (threads[index].state == READY) resume(index);
    if (failed) return;
  }
  finish_complete_exchanges(warp);
}

// The warp to run next, or -1 when every thread waits or has returned.
int choose_warp() {
  int warps[MAX_BLOCK / 32], count = blockDim.x / 32;
  put_in_order(warps, count);
  for (int i = 0; i < count; ++i)
    if (lanes_in(warps[i], READY)) return warps[i];
  return -1;
}

// The first thread in `state`, or -1.
int first_in(State state) {
  for (unsigned i = 0; i < blockDim.x; ++i)
    if (threads[i].state == state) return i;
  return -1;
}

// With no thread able to run: open the block's barrier. False when all threads have returned.
bool open_block_barrier() {
  int first = first_in(AT_BLOCK_BARRIER), lane = first_in(AT_WARP_EXCHANGE);
  if (lane >= 0) {
    std::string other = first < 0 ? "" : "; " + place_of(first);
    fail_block("divergent: %s for lanes 0x%08x, not all of which can come%s",
               place_of(lane).c_str(), threads[lane].mask, other.c_str());
    return false;
  }
  for (int i = 0; first >= 0 && i < (int)blockDim.x; ++i) {
    if (threads[i].state != AT_BLOCK_BARRIER) continue;
    if (!together(threads[first], threads[i])) {
      fail_block("divergent: %s, %s", place_of(first).c_str(), place_of(i).c_str());
      return false;
    }
    threads[i].state = READY;
  }
  return first >= 0;
}

void run_block() {
  memset(smem, POISON, sizeof smem);
  for (unsigned i = 0; i < blockDim.x; ++i) threads[i].state = READY;
  do {
    for (int warp; !failed && (warp = choose_warp()) >= 0;) run_warp(warp);
  } while (!failed && open_block_barrier());
  for (size_t i = launch->shared_bytes; i < sizeof smem && !failed; ++i)
    if (smem[i] != POISON)
      fail_block("shared memory written at byte %zu; the launch has %lld bytes", i,
                 launch->shared_bytes);
}

}  // namespace

// ---------------------------------------------------------------- what a kernel calls

void gfgp_host_load(const void* pointer, int bytes) {
  uint64_t address = (uint64_t)pointer;
  GfgpTensor& tensor = check_access("load", address, bytes);
  ++launch->loads;
  tensor.load_bytes += bytes;
  uint32_t self = thread_number();
  for (uint64_t byte = address; byte < address + bytes; ++byte) {
    Shadow& shadow = shadow_of(byte);
    if (shadow.writer && shadow.writer != self)
      fail_race("load", "stores", shadow.writer, tensor, byte);
    if (shadow.reader != self) shadow.reader = shadow.reader ? SEVERAL : self;
    if (byte % SECTOR_BYTES == 0 || byte == address) {
      uint32_t& block = shadow_of(byte / SECTOR_BYTES * SECTOR_BYTES).block;
      if (block != blockIdx.x + 1) launch->sector_bytes += SECTOR_BYTES;
      block = blockIdx.x + 1;
    }
  }
}

void gfgp_host_store(const void* pointer, int bytes) {
  uint64_t address = (uint64_t)pointer;
  GfgpTensor& tensor = check_access("store", address, bytes);
  ++launch->stores;
  tensor.store_bytes += bytes;
  uint32_t self = thread_number();
  for (uint64_t byte = address; byte < address + bytes; ++byte) {
    Shadow& shadow = shadow_of(byte);
    if (shadow.writer && shadow.writer != self)
      fail_race("store", "stores", shadow.writer, tensor, byte);
    if (shadow.reader && shadow.reader != self)
      fail_race("store", "loads", shadow.reader, tensor, byte);
    shadow.writer = self;
  }
}

void gfgp_host_block_barrier(GfgpPlace place) {
  threads[current].place = place;
  threads[current].intrinsic = "__syncthreads";
  stop(AT_BLOCK_BARRIER);
}

unsigned long long gfgp_host_warp_exchange(const char* intrinsic, unsigned mask,
                                           unsigned long long value, int source,
                                           GfgpPlace place) {
  if (!(mask >> (current % 32) & 1))
    fail_thread("%s in %s:%d with mask 0x%08x, which leaves out the calling lane", intrinsic,
                place.file, place.line, mask);
  Thread& thread = threads[current];
  thread.place = place;
  thread.intrinsic = intrinsic;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  stop(AT_WARP_EXCHANGE);
  return threads[current].result;
}

// ---------------------------------------------------------------- what run.py calls

int gfgp_host_launch(GfgpLaunch* the_launch, char* message, long long message_bytes) {
  launch = the_launch;
  failed = false;
  random_state = launch->seed;
  gridDim = {(unsigned)launch->grid, 1, 1};
  blockDim = {(unsigned)launch->block, 1, 1};
  threadIdx = blockIdx = {0, 0, 0};
  shadows.clear();
  shadow_page = nullptr;
  std::vector<int> blocks(launch->grid);
  put_in_order(blocks.data(), launch->grid);
  for (int block : blocks) {
    blockIdx.x = block;
    run_block();
    if (failed) break;
  }
  if (!failed) return 0;
  for (Thread& thread : threads) thread.has_context = false;  // some stopped inside the kernel
  snprintf(message, message_bytes, "%s", failure);
  return 1;
}
