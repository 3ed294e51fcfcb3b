// Matrix products and convolutions on Hopper: one warp copies tiles, eight multiply them. Empty for other cards.
#if defined(EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#include "finish_hopper.cuh"

namespace hopper {
// A step multiplies 64 values of the depth; a row of a tile has them in 128 bytes.
enum { ROWS = 128, DEPTH = 64, ROW = 128, COPIER = 256, GROUP = 16 };

// y = steps(left right^T), a tile of 128 rows and N columns a block. Left tiles are used by `side` steps running, each
// 1024 bytes further on; LEFTS of them and RIGHTS right tiles are in shared memory. `fetch_left(to, arrival, tile)` and
// `fetch_right(to, arrival, step)` copy them, `left_bytes` is what the first brings, `place(r)` is where a tile's row goes. Every
// `parts.width` columns are a part, whose rows lie together; all columns are one where there are other steps than bias
// and activation. `gate_group` is whose gate all rows have, -1: of several.
struct Parts { int width, rows; };
template <int N, int LEFTS, int RIGHTS, int BORDER, class Left, class Right, class Place>
DEVICE void product(int column0, int columns, int count, int side, int left_bytes, int phase, bool early, const Parts& parts, int gate_group, const Steps& steps,
                    Left fetch_left, Right fetch_right, Place place, const TensorMap& left_map, const TensorMap& right_map) {
    enum { LEFT = (ROWS + BORDER) * ROW, RIGHT = N * ROW, PITCH = N % 32 == 8 ? N : N + 8, EIGHTS = N / 8 };
    SHARED_BOXES(memory);
    unsigned char* lefts = memory;
    unsigned char* rights = memory + LEFTS * LEFT;
    Arrival* left_full = (Arrival*)(rights + RIGHTS * RIGHT);
    Arrival* left_empty = left_full + LEFTS;
    Arrival* right_full = left_empty + LEFTS;
    Arrival* right_empty = right_full + RIGHTS;
    const int thread = threadIdx.x;
    if (thread == 0) {
        prefetch_map(left_map);
        prefetch_map(right_map);
        for (int s = 0; s < LEFTS; s++) { arrival_init(left_full + s, 1); arrival_init(left_empty + s, 2); }
        for (int s = 0; s < RIGHTS; s++) { arrival_init(right_full + s, 1); arrival_init(right_empty + s, 2); }
        arrivals_visible();
    }
    barrier();
    if (thread >= COPIER) {
        if (thread > COPIER) return;
        // Where the right operand is older than the kernel before, its first tiles need not wait for that.
        const int ahead = !early ? 0 : count < RIGHTS ? count : RIGHTS;
        for (int s = 0; s < ahead; s++) {
            arrive_expecting(right_full + s, RIGHT);
            fetch_right(rights + s * RIGHT, right_full + s, s);
        }
        take_turn();
        for (int step = 0, tile = 0, turn = 0; step < count; step++) {
            if (turn == 0) {
                const int s = tile % LEFTS;
                await(left_empty + s, tile / LEFTS % 2 ^ 1);
                arrive_expecting(left_full + s, left_bytes);
                fetch_left(lefts + s * LEFT, left_full + s, tile++);
            }
            if (++turn == side) turn = 0;
            if (step < ahead) continue;
            const int s = step % RIGHTS;
            await(right_empty + s, step / RIGHTS % 2 ^ 1);
            arrive_expecting(right_full + s, RIGHT);
            fetch_right(rights + s * RIGHT, right_full + s, step);
        }
        return;
    }
    take_turn();
    const int half = thread / 128;
    float sums[N / 2];
    for (int step = 0, tile = 0, turn = 0; step < count; step++) {
        const int s = step % RIGHTS;
        if (turn == 0) await(left_full + tile % LEFTS, tile / LEFTS % 2);
        await(right_full + s, step / RIGHTS % 2);
        unsigned char* a = lefts + tile % LEFTS * LEFT + turn * 1024 + half * 64 * ROW;
        unsigned char* b = rights + s * RIGHT;
        group_fence();
#pragma unroll
        for (int k = 0; k < DEPTH / 16; k++) group_multiply(sums, rows_of_128(a + k * 32), rows_of_128(b + k * 32), step + k > 0);
        group_commit();
        // The products of the step before are done, so its tiles may be overwritten.
        group_wait<1>();
        if (thread % 128 == 0 && step > 0) {
            arrive(right_empty + (step - 1) % RIGHTS);
            if (turn == 0) arrive(left_empty + (tile - 1) % LEFTS);
        }
        if (++turn == side) { turn = 0; tile++; }
    }
    // The sums go through shared memory, so that a lane has eight columns of a row, the same ones of every row.
    enum { AT_ONCE = 32 / EIGHTS, PASSES = (16 + AT_ONCE - 1) / AT_ONCE, AHEAD = 4 };
    const int lane = thread % 32, warp = thread / 32, column = column0 + lane % EIGHTS * 8;
    const bool mine = lane < AT_ONCE * EIGHTS && column < columns, ahead = reads_ahead(steps, columns, phase >= 0);
    // The tile's row that is a lane's in a pass, and where it goes.
    auto local = [&](int pass) { return pass * AT_ONCE + lane / EIGHTS; };
    auto spot = [&](int pass) { return mine && local(pass) < 16 ? place(warp * 16 + local(pass)) : Spot{-1, 0}; };
    float added[AHEAD][8] = {};
    auto read = [&](int pass) {
        if (!steps.kind) return;
#pragma unroll
        for (int i = 0; i < AHEAD; i++) read_added(steps, spot(pass + i), phase, column, columns, added[i]);
    };
    // Narrow tiles leave registers for what is added while the last products are made.
    constexpr bool EARLY = N <= 72;
    if (EARLY && ahead) read(0);
    group_wait<0>();
    named_barrier<1, COPIER>();
    float* room = (float*)memory + warp * 16 * PITCH;
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            *(Pair*)(room + (i * 8 + lane / 4) * PITCH + n * 8 + lane % 4 * 2) = {sums[n * 4 + 2 * i], sums[n * 4 + 2 * i + 1]};
    warp_barrier();
    if (!ahead) {
#pragma unroll 1
        for (int pass = 0; pass < PASSES; pass++) {
            const long long row = spot(pass).row;
            if (row < 0) continue;
            float v[8];
            get_floats(room + local(pass) * PITCH + lane % EIGHTS * 8, v);
            finish(steps, v, row, column, columns);
        }
        return;
    }
    const long long first = column / parts.width * ((long long)parts.width * parts.rows) + column % parts.width;
    const Common common(steps, column, columns, gate_group, mine);
#pragma unroll 1
    for (int pass = 0; pass < PASSES; pass += AHEAD) {
        if (!EARLY || pass) read(pass);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const long long row = spot(pass + i).row;
            if (row < 0) continue;
            float v[8];
            get_floats(room + local(pass + i) * PITCH + lane % EIGHTS * 8, v);
            finish_with(steps, v, common, added[i], row, column, columns, first + row * parts.width);
        }
    }
}

// x is [rows, depth] in boxes of 64 values and 128 rows, w is [columns, depth] in boxes of 64 and N. Blocks go
// through GROUP tiles of rows before the next tile of columns, so that those that run together share both.
template <int N, int STAGES>
DEVICE void linear(const TensorMap& x, const TensorMap& w, int rows, int columns, int depth, int part, int early, const Steps& steps) {
    const int across = (columns + N - 1) / N, down = (rows + ROWS - 1) / ROWS;
    const int group = blockIdx.x / (GROUP * across), inside = blockIdx.x % (GROUP * across);
    const int size = down - group * GROUP < GROUP ? down - group * GROUP : GROUP;
    const int row0 = (group * GROUP + inside % size) * ROWS, column0 = inside / size * N;
    auto group_of = [&](int row) { return row / steps.rows_per_gate; };
    product<N, STAGES, STAGES, 0>(column0, columns, (depth + DEPTH - 1) / DEPTH, 1, ROWS * ROW, -1, early, {part, rows}, group_of(row0) == group_of(row0 + ROWS < rows ? row0 + ROWS - 1 : rows - 1) ? group_of(row0) : -1, steps,
        [&](void* to, Arrival* a, int tile) { load_box2(to, x, a, tile * DEPTH, row0); },
        [&](void* to, Arrival* a, int step) { load_box2(to, w, a, step * DEPTH, column0); },
        [&](int r) { return Spot{row0 + r < rows ? row0 + r : -1, 0}; }, x, w);
}

// x is [pictures, height, width, channels] in boxes of 64 channels, 8 columns and 16 + side - 1 rows; w is
// [phases * columns, side * side * channels]; the filter's step is one. A box serves the taps of a column of the
// filter. Where channels leave a box partly empty, what follows in w meets zeros.
template <int N, int LEFTS, int RIGHTS>
DEVICE void convolution(const TensorMap& x, const TensorMap& w, const Window& window, int columns, int early, const Steps& steps) {
    const int tiles = (columns + N - 1) / N, tile = blockIdx.x / tiles, column0 = blockIdx.x % tiles * N, side = window.side;
    const int across = (window.columns + 7) / 8, down = (window.rows + 15) / 16;
    const int x0 = tile % across * 8, y0 = tile / across % down * 16, picture = tile / (across * down);
    const int chunks = (window.channels + DEPTH - 1) / DEPTH;
    // The phase of a doubled map: which pixel of a square.
    const int phase = blockIdx.z, lower = phase / 2, righter = phase % 2;
    product<N, LEFTS, RIGHTS, 16>(column0, columns, side * side * chunks, side, (16 + side - 1) * 8 * ROW, window.phases == 4 ? phase : -1, early, {columns, 0}, -1, steps,
        [&](void* to, Arrival* a, int box) {
            load_box4(to, x, a, box / side * DEPTH, x0 - window.left + righter + box % side, y0 - window.top + lower, picture);
        },
        [&](void* to, Arrival* a, int step) {
            const int chunk = step / (side * side), tap = step % side * side + step / side % side;
            load_box2(to, w, a, tap * window.channels + chunk * DEPTH, phase * columns + column0);
        },
        [&](int r) {
            const int column = x0 + r % 8, row = y0 + r / 8;
            if (column >= window.columns || row >= window.rows) return Spot{-1, 0};
            const int source = (picture * window.rows + row) * window.columns + column;
            if (window.phases == 1) return Spot{source, source};
            return Spot{(picture * 2 * window.rows + 2 * row + lower) * 2 * window.columns + 2 * column + righter, source};
        }, x, w);
}
}  // namespace hopper

#define LINEAR(kernel, name, n, stages) \
    kernel(288, linear_hopper_##name, MAP x, MAP w, int rows, int columns, int depth, int part, int early, Steps steps) { \
        hopper::linear<n, stages>(x, w, rows, columns, depth, part, early, steps); \
    }
#define CONVOLUTION(kernel, name, n, lefts, rights) \
    kernel(288, conv_hopper_##name, MAP x, MAP w, Window window, int columns, int early, Steps steps) { \
        hopper::convolution<n, lefts, rights>(x, w, window, columns, early, steps); \
    }
// Two blocks run side by side on a multiprocessor: one multiplies while the other writes.
LINEAR(KERNEL, 64_twice, 64, 4)
LINEAR(KERNEL, 72_twice, 72, 4)
LINEAR(KERNEL, 128_twice, 128, 3)
CONVOLUTION(KERNEL, 64_twice, 64, 2, 6)
CONVOLUTION(KERNEL, 128_twice, 128, 2, 4)
// One block, with more tiles under way.
LINEAR(KERNEL_ALONE, 96, 96, 7)
LINEAR(KERNEL_ALONE, 176, 176, 5)
LINEAR(KERNEL_ALONE, 256, 256, 4)
CONVOLUTION(KERNEL_ALONE, 256, 256, 2, 5)
#endif
