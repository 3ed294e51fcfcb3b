// 3x3 convolutions of stride one at the ends of a network, of three channels or to three, by tensor cores. Products do
// not care which channel stands at which depth or column as long as both operands agree: lanes take and give
// neighbours in memory.
#include "epilogue.cuh"

struct EndMap { int pictures, height, width, channels, outputs; };
namespace ends_parts {
struct alignas(8) Pair { unsigned u[2]; };
struct alignas(8) Two { float v[2]; };
enum { WIDTH = 32, THREADS = 256 };
// Of few channels: rows of a tile, and halves of a row with its border.
enum { ROWS_IN = 8, PITCH_IN = (WIDTH + 2) * 3 };
// To few: rows of a tile, pixels with the border in tiles of 16, and the sums of a pixel.
enum { ROWS_OUT = 16, ACROSS = WIDTH + 2, PIXELS = ACROSS * (ROWS_OUT + 2), TILES = (PIXELS + 15) / 16, PITCH_OUT = 28 };

// Where the value `k` of a filter's (row, column, channel) lies, counted in a tile's halves from the top left.
DEVICE int place(int k, int channels) { return k < 9 * channels ? k / (3 * channels) * PITCH_IN + k % (3 * channels) : 0; }

DEVICE void conv_from_few_of(const Array& x, const bf16* w, const EndMap& m, const Steps& steps) {
    SHARED(memory);
    Pair* filter = (Pair*)memory;
    bf16* tile = (bf16*)(filter + 4 * 8 * 32);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int column0 = blockIdx.y * 128, line = 3 * m.channels;
    // Thirty-two columns at a time, of which a lane gives eight neighbours.
    for (int i = threadIdx.x; i < 4 * 8 * 32; i += THREADS) {
        const int l = i % 32, step = i / 32 % 2, n = i / 64 % 4, q = i / 256;
        const int column = column0 + q * 32 + l / 8 * 8 + 2 * n + l / 4 % 2;
        unsigned u[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int k = step * 16 + j / 2 * 8 + l % 4 * 2 + j % 2, rest = k % line;
            const bool known = k < 3 * line && column < m.outputs;
            u[j] = known ? w[((column * 3 + k / line) * 3 + rest / m.channels) * 8 + rest % m.channels].bits : 0;
        }
        filter[i] = {{u[0] | u[1] << 16, u[2] | u[3] << 16}};
    }
    int from[2][2][2];
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 2; i++) from[step][half][i] = place(step * 16 + half * 8 + t * 2 + i, m.channels);
    const int across = (m.width + WIDTH - 1) / WIDTH, down = (m.height + ROWS_IN - 1) / ROWS_IN;
    for (int at = blockIdx.x; at < m.pictures * across * down; at += gridDim.x) {
        const int left = at % across * WIDTH, top = at / across % down * ROWS_IN, picture = at / (across * down);
        barrier();
        const int values = (WIDTH + 2) * m.channels;
        for (int i = threadIdx.x; i < (ROWS_IN + 2) * values; i += THREADS) {
            const int r = i / values, c = i % values, row = top + r - 1, column = left - 1 + c / m.channels;
            const bool inside = row >= 0 && row < m.height && column >= 0 && column < m.width;
            const long long there = (((long long)picture * m.height + row) * m.width + left - 1) * m.channels + c;
            tile[r * PITCH_IN + c] = to_bf16(inside ? get(x, there) : 0.0f);
        }
        barrier();
        // Two tiles of 16 pixels a row.
#pragma unroll 1
        for (int part = warp; part < ROWS_IN * 2; part += 8) {
            const int r = part / 2, c = part % 2 * 16;
            unsigned lefts[2][4];
#pragma unroll
            for (int step = 0; step < 2; step++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const bf16* pixel = tile + r * PITCH_IN + (c + g + i % 2 * 8) * m.channels;
                    const int* k = from[step][i / 2];
                    lefts[step][i] = pixel[k[0]].bits | (unsigned)pixel[k[1]].bits << 16;
                }
#pragma unroll 1
            for (int q = 0; q < 4; q++) {
                float sums[4][4] = {};
#pragma unroll
                for (int n = 0; n < 4; n++)
#pragma unroll
                    for (int step = 0; step < 2; step++) {
                        const Pair right = filter[(q * 8 + n * 2 + step) * 32 + lane];
                        multiply_add(sums[n], lefts[step], right.u[0], right.u[1]);
                    }
                const int row = top + r, column = column0 + q * 32 + t * 8;
#pragma unroll 1
                for (int half = 0; half < 2; half++) {
                    const int px = left + c + g + half * 8;
                    if (row >= m.height || px >= m.width || column >= m.outputs) continue;
                    float v[8];
#pragma unroll
                    for (int j = 0; j < 8; j++) v[j] = half ? sums[j / 2][2 + j % 2] : sums[j / 2][j % 2];
                    finish(steps, v, ((long long)picture * m.height + row) * m.width + px, column, m.outputs);
                }
            }
        }
    }
}

DEVICE void conv_to_few_of(const bf16* x, const bf16* w, const EndMap& m, const Steps& steps) {
    SHARED(memory);
    float* taps = (float*)memory;
    Pair* filter = (Pair*)(taps + TILES * 16 * PITCH_OUT);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, chunks = m.channels / 32;
    const int across = (m.width + WIDTH - 1) / WIDTH, down = (m.height + ROWS_OUT - 1) / ROWS_OUT;
    const int left = blockIdx.x % across * WIDTH - 1, top = blockIdx.x / across % down * ROWS_OUT - 1;
    const long long picture = blockIdx.x / (across * down);
    // Depths 2t, 2t + 1, 2t + 8 and 2t + 9 of a chunk's step s are its channels 8t + 4s to 8t + 4s + 3.
    for (int i = threadIdx.x; i < chunks * 8 * 32; i += THREADS) {
        const int l = i % 32, n = i / 32 % 4, s = i / 128 % 2, chunk = i / 256, column = n * 8 + l / 4;
        const int tap = column / m.outputs, output = column % m.outputs;
        const bf16* from = w + (output * 9 + tap) * m.channels + chunk * 32 + l % 4 * 8 + s * 4;
        filter[i] = tap < 9 ? Pair{{from[0].bits | (unsigned)from[1].bits << 16, from[2].bits | (unsigned)from[3].bits << 16}} : Pair{};
    }
    barrier();
    for (int part = warp; part < TILES; part += 8) {
        const bf16* rows[2];
        bool inside[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int pixel = part * 16 + half * 8 + g, row = top + pixel / ACROSS, column = left + pixel % ACROSS;
            inside[half] = pixel < PIXELS && row >= 0 && row < m.height && column >= 0 && column < m.width;
            rows[half] = x + (inside[half] ? ((picture * m.height + row) * m.width + column) * m.channels : 0) + t * 8;
        }
        float sums[4][4] = {};
#pragma unroll 4
        for (int chunk = 0; chunk < chunks; chunk++) {
            const Four a = inside[0] ? *(const Four*)(rows[0] + chunk * 32) : Four{};
            const Four b = inside[1] ? *(const Four*)(rows[1] + chunk * 32) : Four{};
#pragma unroll
            for (int s = 0; s < 2; s++) {
                const unsigned lefts[4] = {a.u[2 * s], b.u[2 * s], a.u[2 * s + 1], b.u[2 * s + 1]};
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    const Pair right = filter[((chunk * 2 + s) * 4 + n) * 32 + lane];
                    multiply_add(sums[n], lefts, right.u[0], right.u[1]);
                }
            }
        }
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                if (n * 8 + t * 2 < PITCH_OUT)
                    *(Two*)(taps + (part * 16 + half * 8 + g) * PITCH_OUT + n * 8 + t * 2) = {{sums[n][half * 2], sums[n][half * 2 + 1]}};
    }
    barrier();
    for (int i = threadIdx.x; i < WIDTH * ROWS_OUT; i += THREADS) {
        const int r = i / WIDTH, c = i % WIDTH, row = top + 1 + r, column = left + 1 + c;
        if (row >= m.height || column >= m.width) continue;
        float v[8] = {};
#pragma unroll
        for (int output = 0; output < 3; output++) {
            if (output >= m.outputs) continue;
#pragma unroll
            for (int tap = 0; tap < 9; tap++) v[output] += taps[((r + tap / 3) * ACROSS + c + tap % 3) * PITCH_OUT + tap * m.outputs + output];
        }
        finish(steps, v, (picture * m.height + row) * m.width + column, 0, m.outputs);
    }
}
}  // namespace ends_parts

// x has at most three channels, w is [outputs, 3, 3, 8] with zeros behind them, and 32 divides the outputs. A block of
// 256 takes 128 outputs of every so many tiles of 32 x 8 pixels. 10240 bytes of shared memory.
KERNEL(256, conv_from_few, Array x, const bf16* w, EndMap m, Steps steps) {
    take_turn();
    ends_parts::conv_from_few_of(x, w, m, steps);
}

// To at most three channels from as many as 32 divides; w is [outputs, 3, 3, channels]. First every tap's sum over the
// channels at every pixel of a tile of 32 x 16 and its border: 27 columns for a product. Then the taps that meet at a
// pixel are added. A block of 256 a tile; 69888 + 64 channels bytes of shared memory.
KERNEL(256, conv_to_few, const bf16* x, const bf16* w, EndMap m, Steps steps) {
    take_turn();
    ends_parts::conv_to_few_of(x, w, m, steps);
}
