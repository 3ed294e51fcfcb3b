// Hopper's words on the CPU: copies of boxes arrive between turns, in an order and after a time that the seed decides;
// products of four warps happen when they are waited for.
#pragma once
#define MAP const TensorMap
#define SHARED_BOXES(name) SHARED(name)
#define KERNEL_ALONE(threads, name, ...) KERNEL(threads, name, __VA_ARGS__)
// As the emulated driver encodes it; innermost first, strides in bytes.
struct TensorMap { const unsigned char* base; int rank, box[5]; long long sides[5], strides[5], unused[2]; };
// `flips`: the parity in the lowest bit, bytes announced and not there above it.
struct Arrival { short count, pending; int flips; };

namespace emulated {
struct Boxed { unsigned char* to; const TensorMap* map; Arrival* arrival; int at[4]; };
struct Product { unsigned long long left, right; int kept, columns; unsigned group; float* sums[128]; };
struct Group { unsigned arrived, generation, closed, begun, ended; float* sums[128]; Product products[64]; };
struct Hopper { Boxed boxes[64]; unsigned waiting, under_way; Group groups[4]; unsigned named, named_generation, random; };
inline Hopper hopper;

inline void settle(Arrival* a) {
    if (a->pending || a->flips >> 1) return;
    a->flips ^= 1;
    a->pending = a->count;
    block.progress++;
}
inline void copy_box(const Boxed& b) {
    const TensorMap& m = *b.map;
    long long rows = 1;
    for (int d = 1; d < m.rank; d++) rows *= m.box[d];
    for (long long r = 0; r < rows; r++) {
        long long rest = r, offset = 0;
        bool inside = true;
        for (int d = 1; d < m.rank; d++) {
            const long long at = b.at[d] + rest % m.box[d];
            rest /= m.box[d];
            inside = inside && at >= 0 && at < m.sides[d];
            offset += at * m.strides[d];
        }
        for (int j = 0; j < m.box[0]; j++) {
            const long long at = b.at[0] + j;
            unsigned short v = 0;
            if (inside && at >= 0 && at < m.sides[0]) std::memcpy(&v, m.base + offset + 2 * at, 2);
            size_t to = (b.to - block.memory) + r * 128 + 2 * j;
            to ^= (to >> 7 & 7) << 4;
            std::memcpy(block.memory + to, &v, 2);
        }
    }
    b.arrival->flips -= 2 * (int)(rows * m.box[0] * 2);
    settle(b.arrival);
}
inline void deliver() {
    for (unsigned i = 0; i < hopper.under_way;) {
        hopper.random = hopper.random * 1664525u + 1013904223u;
        // Some take longer, unless nothing else happens.
        if (block.seed && hopper.waiting < 8 && hopper.random >> 30) { hopper.waiting++; i++; continue; }
        hopper.waiting = 0;
        copy_box(hopper.boxes[i]);
        hopper.boxes[i] = hopper.boxes[--hopper.under_way];
        block.progress++;
    }
    if (hopper.under_way) block.progress++;
}
inline void begin_hopper() {
    for (Group& g : hopper.groups) g.arrived = g.closed = g.begun = g.ended = 0;
    hopper.waiting = hopper.under_way = hopper.named = 0;
    hopper.random = block.seed;
}
inline const bool hopper_takes_part = (block_begins = begin_hopper, between_turns = deliver, true);

template <class F> void whole_group(F last) {
    Fiber* me = block.current;
    Group& g = hopper.groups[me->number / 128];
    const unsigned generation = g.generation;
    block.progress++;
    if (++g.arrived == 128) { last(g); g.arrived = 0; g.generation++; }
    else while (g.generation == generation) yield();
}
inline float operand(unsigned long long descriptor, int row, int k) {
    size_t at = (descriptor & 0x3fff) << 4;
    const size_t step = (descriptor >> 32 & 0x3fff) << 4;
    at += row / 8 * step + row % 8 * 128 + k * 2;
    at ^= (at >> 7 & 7) << 4;
    unsigned short v;
    std::memcpy(&v, block.memory + at, 2);
    return bits_to_f32((unsigned)v << 16);
}
inline void compute(const Product& p) {
    static float left[64][16], right[256][16];
    for (int k = 0; k < 16; k++) {
        for (int r = 0; r < 64; r++) left[r][k] = operand(p.left, r, k);
        for (int r = 0; r < p.columns; r++) right[r][k] = operand(p.right, r, k);
    }
    for (int t = 0; t < 128; t++) for (int i = 0; i < p.columns / 2; i++) {
        const int row = t / 32 * 16 + t % 32 / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + t % 4 * 2 + i % 2;
        float sum = p.kept ? p.sums[t][i] : 0.0f;
        for (int k = 0; k < 16; k++) sum += left[row][k] * right[column][k];
        p.sums[t][i] = sum;
    }
}
inline void load(void* to, const TensorMap& map, Arrival* a, int x, int y, int z, int w) {
    if (hopper.under_way == 64) { block.outcome = NOT_WAITED; yield(); }
    hopper.boxes[hopper.under_way++] = {(unsigned char*)to, &map, a, {x, y, z, w}};
}
}  // namespace emulated

DEVICE void arrival_init(Arrival* a, int count) { *a = {(short)count, (short)count, 0}; }
DEVICE void arrivals_visible() {}
DEVICE void arrive(Arrival* a) { a->pending--; emulated::settle(a); }
DEVICE void arrive_expecting(Arrival* a, int bytes) { a->flips += 2 * bytes; arrive(a); }
DEVICE void await(Arrival* a, int parity) { while ((a->flips & 1) == parity) emulated::yield(); }
DEVICE void prefetch_map(const TensorMap&) {}
DEVICE void load_box2(void* to, const TensorMap& map, Arrival* a, int x, int y) { emulated::load(to, map, a, x, y, 0, 0); }
DEVICE void load_box4(void* to, const TensorMap& map, Arrival* a, int x, int y, int z, int w) { emulated::load(to, map, a, x, y, z, w); }
template <int id, int threads> DEVICE void named_barrier() {
    auto& h = emulated::hopper;
    const unsigned generation = h.named_generation;
    emulated::block.progress++;
    if (++h.named == threads) { h.named = 0; h.named_generation++; }
    else while (h.named_generation == generation) emulated::yield();
}
DEVICE void group_fence() {}
DEVICE void group_commit() { emulated::whole_group([](emulated::Group& g) { g.closed++; }); }
template <int left> DEVICE void group_wait() {
    emulated::whole_group([](emulated::Group& g) {
        while (g.ended < g.begun && (int)(g.closed - g.products[g.ended % 64].group) > left) emulated::compute(g.products[g.ended++ % 64]);
    });
}
DEVICE unsigned long long rows_of_128(const void* p) {
    const size_t at = (const unsigned char*)p - emulated::block.memory;
    return (unsigned long long)(at >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
template <int count> DEVICE void group_multiply(float (&d)[count], unsigned long long left, unsigned long long right, int kept) {
    emulated::hopper.groups[emulated::block.current->number / 128].sums[emulated::block.current->number % 128] = d;
    emulated::whole_group([=](emulated::Group& g) {
        if (g.begun - g.ended == 64) { emulated::block.outcome = emulated::NOT_WAITED; return; }
        auto& p = g.products[g.begun++ % 64];
        p.left = left;
        p.right = right;
        p.kept = kept;
        p.columns = 2 * count;
        p.group = g.closed;
        std::memcpy(p.sums, g.sums, sizeof p.sums);
    });
}
