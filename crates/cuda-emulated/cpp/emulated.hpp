// A block of threads as fibers on one CPU thread, for tests: barriers, warp collectives, asynchronous copies that
// arrive only when they are waited for, and an order of threads that a seed shuffles. Shared memory starts as NaN.
// One launch runs at a time.
#pragma once
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#define DEVICE inline
// A kernel enters itself in the list of all.
#define KERNEL(threads, name, ...)                                                        \
    static void name(__VA_ARGS__);                                                        \
    static const emulated::Entry entry_of_##name(#name, threads, emulated::caller<name>); \
    static void name(__VA_ARGS__)
#define SHARED(name) unsigned char* name = emulated::block.memory

namespace emulated {
enum Outcome { DONE, UNKNOWN_KERNEL, OTHER_ARGUMENTS, OTHER_BLOCK, STUCK, NOT_WAITED };
struct Index { unsigned x, y, z; };
struct Copy { void* to; const void* from; int bytes; unsigned group; };
struct Fiber {
    jmp_buf here;
    bool started, done;
    Index thread;
    unsigned number, closed, begun, ended;  // groups closed; copies made and arrived
    Copy copies[64];
};
struct Warp { unsigned arrived, generation; unsigned char in[32][64], out[32][64]; };
struct Block {
    Fiber* fibers;
    Warp* warps;
    Index index, size, grid;
    unsigned char* memory;
    unsigned waiting, generation, live, seed;
    int outcome;
    unsigned long progress;
    jmp_buf scheduler;
    Fiber* current;
    void (*call)(void**);
    void** arguments;
};
inline Block block;
// What other words need at a block's begin, and after every thread had a turn.
inline void (*block_begins)() = nullptr;
inline void (*between_turns)() = nullptr;

// `_setjmp` leaves the signals alone, so a turn costs no system call.
inline void yield() {
    Fiber* me = block.current;
    if (!_setjmp(me->here)) _longjmp(block.scheduler, 1);
}
inline void enter() {
    block.call(block.arguments);
    block.current->done = true;
    block.live--;
    block.progress++;
    _longjmp(block.scheduler, 1);
}

// All lanes of a warp give `in`; the last one computes for all.
template <class In, class Out, class F> Out collective(const In& in, F compute) {
    static_assert(sizeof(In) <= 64 && sizeof(Out) <= 64, "room of a lane");
    Fiber* me = block.current;
    Warp& warp = block.warps[me->number / 32];
    const unsigned lane = me->number % 32;
    std::memcpy(warp.in[lane], &in, sizeof in);
    const unsigned generation = warp.generation;
    block.progress++;
    if (++warp.arrived == 32) {
        In ins[32];
        Out outs[32];
        for (int l = 0; l < 32; l++) std::memcpy(&ins[l], warp.in[l], sizeof(In));
        compute(ins, outs);
        for (int l = 0; l < 32; l++) std::memcpy(warp.out[l], &outs[l], sizeof(Out));
        warp.arrived = 0;
        warp.generation++;
    } else {
        while (warp.generation == generation) yield();
    }
    Out out;
    std::memcpy(&out, warp.out[lane], sizeof out);
    return out;
}

// One turn of a fiber; it comes back when the fiber waits or is done.
__attribute__((noinline)) inline void turn(Fiber* fiber, unsigned char* stack, size_t bytes) {
    block.current = fiber;
    if (_setjmp(block.scheduler)) return;
    if (fiber->started) _longjmp(fiber->here, 1);
    fiber->started = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, enter, 0);
    setcontext(&context);
}

// Runs every block; threads of a block take turns in an order that `seed` decides.
inline int run(Index grid, Index size, unsigned bytes, unsigned seed) {
    const unsigned threads = size.x * size.y * size.z;
    const size_t stack = 64 << 10, room = bytes + 2048;
    unsigned char* stacks = (unsigned char*)std::malloc(stack * threads);
    unsigned char* memory = (unsigned char*)std::malloc(room);
    unsigned* order = (unsigned*)std::malloc(threads * sizeof(unsigned));
    block.fibers = (Fiber*)std::malloc(threads * sizeof(Fiber));
    block.warps = (Warp*)std::malloc(threads / 32 * sizeof(Warp));
    block.size = size;
    block.grid = grid;
    block.memory = (unsigned char*)(((uintptr_t)memory + 1023) / 1024 * 1024);
    unsigned random = seed * 2654435761u + 1;
    block.seed = seed;
    block.outcome = DONE;
    for (unsigned z = 0; z < grid.z; z++) for (unsigned y = 0; y < grid.y; y++) for (unsigned x = 0; x < grid.x; x++) {
        std::memset(memory, 0xff, room);
        std::memset(block.warps, 0, threads / 32 * sizeof(Warp));
        block.index = {x, y, z};
        block.waiting = block.generation = 0;
        block.live = threads;
        if (block_begins) block_begins();
        for (unsigned t = 0; t < threads; t++) {
            Fiber& f = block.fibers[t];
            f.started = f.done = false;
            f.number = t;
            f.closed = f.begun = f.ended = 0;
            f.thread = {t % size.x, t / size.x % size.y, t / (size.x * size.y)};
            order[t] = t;
        }
        if (seed) for (unsigned t = threads - 1; t > 0; t--) {
            random = random * 1664525u + 1013904223u;
            std::swap(order[t], order[(random >> 8) % (t + 1)]);
        }
        // With a seed some warps sleep for a while, so that others run ahead as far as barriers let them.
        unsigned asleep = 0, idle = 0, round = 0;
        while (block.live) {
            const unsigned long before = block.progress;
            if (seed && round++ % 16 == 0) {
                random = random * 1664525u + 1013904223u;
                asleep = random >> 8;
            }
            for (unsigned t = 0; t < threads; t++) {
                Fiber* f = &block.fibers[order[t]];
                if (f->done || (idle == 0 && asleep >> f->number / 32 % 24 & 1)) continue;
                turn(f, stacks + stack * f->number, stack);
                if (block.outcome) goto end;
            }
            if (between_turns) between_turns();
            idle = block.progress == before ? idle + 1 : 0;
            if (idle == 2) { block.outcome = STUCK; goto end; }
        }
        // Written past its end?
        for (unsigned char* at = block.memory + bytes; at < memory + room; at++) if (*at != 0xff) { block.outcome = OTHER_BLOCK; goto end; }
    }
end:
    std::free(stacks); std::free(memory); std::free(order); std::free(block.fibers); std::free(block.warps);
    return block.outcome;
}

template <class... A> struct Sizes { static constexpr unsigned count = sizeof...(A); static constexpr unsigned each[sizeof...(A) + 1] = {sizeof(A)..., 0}; };
template <class... A, size_t... I> void apply(void (*kernel)(A...), void** a, std::index_sequence<I...>) { kernel(*(std::remove_const_t<A>*)a[I]...); }
template <class... A> void spread(void (*kernel)(A...), void** a) { apply(kernel, a, std::index_sequence_for<A...>()); }
template <class... A> constexpr const unsigned* sizes_of(void (*)(A...)) { return Sizes<A...>::each; }
template <class... A> constexpr unsigned count_of(void (*)(A...)) { return sizeof...(A); }
struct Caller { void (*call)(void**); const unsigned* sizes; unsigned count; };
template <auto kernel> void call(void** a) { spread(kernel, a); }
template <auto kernel> inline const Caller caller = {call<kernel>, sizes_of(kernel), count_of(kernel)};

// A kernel by name.
struct Entry {
    const char* name;
    unsigned threads;
    const Caller* caller;
    const Entry* next;
    static inline const Entry* first = nullptr;
    Entry(const char* name, unsigned threads, const Caller& caller) : name(name), threads(threads), caller(&caller), next(first) { first = this; }
};
}  // namespace emulated
#define threadIdx (emulated::block.current->thread)
#define blockIdx (emulated::block.index)
#define blockDim (emulated::block.size)
#define gridDim (emulated::block.grid)

DEVICE float bits_to_f32(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
DEVICE float to_f32(bf16 x) { return bits_to_f32((unsigned)x.bits << 16); }
DEVICE bf16 to_bf16(float x) {
    unsigned u;
    std::memcpy(&u, &x, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return {(unsigned short)(u >> 16 | 0x40)};
    u += 0x7fff + (u >> 16 & 1);
    return {(unsigned short)(u >> 16)};
}
DEVICE unsigned fused2(unsigned a, unsigned b, unsigned c) {
    // In f64 product and sum are exact enough that only the last rounding counts.
    auto half = [](unsigned u, int i) { return (double)bits_to_f32(i ? u & 0xffff0000u : u << 16); };
    unsigned y = 0;
    for (int i = 0; i < 2; i++) y |= (unsigned)to_bf16((float)(half(a, i) * half(b, i) + half(c, i))).bits << 16 * i;
    return y;
}
DEVICE int to_nearest(float x) { return x != x ? 0 : (int)std::nearbyint(x); }
DEVICE unsigned pack2(float low, float high) { return to_bf16(low).bits | (unsigned)to_bf16(high).bits << 16; }
DEVICE float exponential(float x) { return std::exp(x); }
DEVICE double exponential_wide(double x) { return std::exp(x); }
DEVICE float quick_exponential(float x) { return std::exp(x); }
DEVICE float power_of_two(float x) { return std::exp2(x); }
DEVICE float larger(float x, float y) { return std::fmax(x, y); }
DEVICE float quick_quotient(float x, float y) { return x / y; }
DEVICE unsigned relu2(unsigned x) {
    auto half = [](unsigned u) { return (u & 0x7fff) > 0x7f80 ? 0x7fffu : u & 0x8000 ? 0u : u; };
    return half(x & 0xffff) | half(x >> 16) << 16;
}
DEVICE float inverse_root(float x) { return 1.0f / std::sqrt(x); }
DEVICE float hyperbolic_tangent(float x) { return std::tanh(x); }
DEVICE float error_function(float x) { return std::erf(x); }
DEVICE bool is_finite(float x) { return std::isfinite(x); }
DEVICE void take_turn() {}
DEVICE void barrier() {
    auto& b = emulated::block;
    const unsigned generation = b.generation;
    b.progress++;
    if (++b.waiting == b.live) { b.waiting = 0; b.generation++; }
    else while (b.generation == generation) emulated::yield();
}
DEVICE void warp_barrier() { emulated::collective<int, int>(0, [](int*, int* out) { std::memset(out, 0, 32 * sizeof(int)); }); }
DEVICE float shuffle_xor(float x, int mask) {
    return emulated::collective<float, float>(x, [mask](float* in, float* out) { for (int l = 0; l < 32; l++) out[l] = in[l ^ mask]; });
}
DEVICE void copy16(void* to, const void* from, int bytes) {
    auto* f = emulated::block.current;
    // More under way than any kernel has: it waits for none of them.
    if (f->begun - f->ended == 64) { emulated::block.outcome = emulated::NOT_WAITED; emulated::yield(); }
    f->copies[f->begun++ % 64] = {to, from, bytes, f->closed};
}
DEVICE void commit() { emulated::block.current->closed++; }
template <int left> DEVICE void wait() {
    auto* f = emulated::block.current;
    while (f->ended < f->begun && (int)(f->closed - f->copies[f->ended % 64].group) > left) {
        auto& c = f->copies[f->ended++ % 64];
        std::memset(c.to, 0, 16);
        std::memcpy(c.to, c.from, c.bytes);
    }
}
namespace emulated {
struct Registers { unsigned r[4]; };
struct Fragments { float c[4]; unsigned a[4], b[2]; };
struct Sums { float c[4]; };
}  // namespace emulated
DEVICE void load_matrices(unsigned (&r)[4], const void* p) {
    auto y = emulated::collective<const void*, emulated::Registers>(p, [](const void** in, emulated::Registers* out) {
        for (int l = 0; l < 32; l++) for (int i = 0; i < 4; i++)
            std::memcpy(&out[l].r[i], (const char*)in[i * 8 + l / 4] + l % 4 * 4, 4);
    });
    std::memcpy(r, y.r, sizeof y.r);
}
DEVICE void load_matrices_transposed(unsigned (&r)[4], const void* p) {
    auto y = emulated::collective<const void*, emulated::Registers>(p, [](const void** in, emulated::Registers* out) {
        for (int l = 0; l < 32; l++) for (int i = 0; i < 4; i++) for (int j = 0; j < 2; j++)
            std::memcpy((char*)&out[l].r[i] + 2 * j, (const char*)in[i * 8 + l % 4 * 2 + j] + l / 4 * 2, 2);
    });
    std::memcpy(r, y.r, sizeof y.r);
}
DEVICE void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulated::Fragments mine;
    std::memcpy(mine.c, c, sizeof mine.c);
    std::memcpy(mine.a, a, sizeof mine.a);
    mine.b[0] = b0;
    mine.b[1] = b1;
    auto y = emulated::collective<emulated::Fragments, emulated::Sums>(mine, [](emulated::Fragments* in, emulated::Sums* out) {
        float left[16][16], right[8][16];
        auto half = [](unsigned u, int i) { return bits_to_f32(i ? u & 0xffff0000u : u << 16); };
        for (int l = 0; l < 32; l++) for (int i = 0; i < 2; i++) {
            const int g = l / 4, t = l % 4 * 2 + i;
            left[g][t] = half(in[l].a[0], i);
            left[g + 8][t] = half(in[l].a[1], i);
            left[g][t + 8] = half(in[l].a[2], i);
            left[g + 8][t + 8] = half(in[l].a[3], i);
            right[g][t] = half(in[l].b[0], i);
            right[g][t + 8] = half(in[l].b[1], i);
        }
        for (int l = 0; l < 32; l++) for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
            float sum = in[l].c[i];
            for (int k = 0; k < 16; k++) sum += left[row][k] * right[column][k];
            out[l].c[i] = sum;
        }
    });
    std::memcpy(c, y.c, sizeof y.c);
}
namespace emulated {
struct ByteFragments { int c[4]; unsigned a[4], b[2]; };
struct ByteSums { int c[4]; };
}  // namespace emulated
DEVICE void multiply_add_bytes(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulated::ByteFragments mine;
    std::memcpy(mine.c, c, sizeof mine.c);
    std::memcpy(mine.a, a, sizeof mine.a);
    mine.b[0] = b0;
    mine.b[1] = b1;
    auto y = emulated::collective<emulated::ByteFragments, emulated::ByteSums>(mine, [](emulated::ByteFragments* in, emulated::ByteSums* out) {
        int left[16][32], right[8][32];
        auto byte = [](unsigned u, int i) { return (int)(signed char)(u >> 8 * i); };
        for (int l = 0; l < 32; l++) for (int i = 0; i < 4; i++) {
            const int g = l / 4, t = l % 4 * 4 + i;
            left[g][t] = byte(in[l].a[0], i);
            left[g + 8][t] = byte(in[l].a[1], i);
            left[g][t + 16] = byte(in[l].a[2], i);
            left[g + 8][t + 16] = byte(in[l].a[3], i);
            right[g][t] = byte(in[l].b[0], i);
            right[g][t + 16] = byte(in[l].b[1], i);
        }
        for (int l = 0; l < 32; l++) for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
            int sum = in[l].c[i];
            for (int k = 0; k < 32; k++) sum += left[row][k] * right[column][k];
            out[l].c[i] = sum;
        }
    });
    std::memcpy(c, y.c, sizeof y.c);
}
