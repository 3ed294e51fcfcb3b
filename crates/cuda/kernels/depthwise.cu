// A filter a channel over channels-last maps; the size stays.
#include "arrays.cuh"

struct DepthwiseMap { int pictures, height, width, channels, side, run; };  // run: columns of a thread's sweep
namespace depthwise_parts {
struct alignas(8) Two { float v[2]; };
template <class T> struct Pair;
template <> struct Pair<bf16> { using Type = unsigned; };
template <> struct Pair<float> { using Type = Two; };
DEVICE void widen(unsigned u, float (&v)[2]) { v[0] = low_half(u); v[1] = high_half(u); }
DEVICE void widen(const Two& u, float (&v)[2]) { v[0] = u.v[0]; v[1] = u.v[1]; }

// Two neighbouring channels of `rows` rows a thread, swept from left to right: each value is read once, and given to
// the sums of all columns that see it. With two parts the first half of the channels is multiplied by SiLU of the
// second.
template <class T, int side, int parts, int rows>
DEVICE void sweep(const T* x, const float* w, const float* bias, const DepthwiseMap& m, const Array& y) {
    using Loaded = typename Pair<T>::Type;
    constexpr int half = side / 2, reach = rows + side - 1;
    const int given = m.channels / parts, pairs = given / 2;
    const int lines = (m.height + rows - 1) / rows, runs = (m.width + m.run - 1) / m.run;
    const long long item = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const int rest = item / pairs, channel = item % pairs * 2;
    const int first = rest % runs * m.run, top = rest / runs % lines * rows, picture = rest / runs / lines;
    if (picture >= m.pictures) return;
    const int end = first + m.run < m.width ? first + m.run : m.width, stride = m.width * m.channels;

    float taps[parts][side * side][2], start[parts][2], sums[parts][rows][side][2];
#pragma unroll
    for (int p = 0; p < parts; p++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int c = channel + p * given + i;
            start[p][i] = bias ? bias[c] : 0.0f;
#pragma unroll
            for (int tap = 0; tap < side * side; tap++) taps[p][tap][i] = w[tap * m.channels + c];
#pragma unroll
            for (int r = 0; r < rows; r++)
#pragma unroll
                for (int s = 0; s < side; s++) sums[p][r][s][i] = start[p][i];
        }
    unsigned inside = 0;
#pragma unroll
    for (int r = 0; r < reach; r++) inside |= (unsigned)(top - half + r < m.height && top - half + r >= 0) << r;

    const long long line = (long long)picture * m.height + top;
    const T* from = x + (line - half) * stride + channel;
    Loaded next[parts][reach];
    auto load = [&](int column) {
        const unsigned there = column >= 0 && column < m.width && column < end + half ? inside : 0;
        const T* at = from + (long long)column * m.channels;
#pragma unroll
        for (int p = 0; p < parts; p++)
#pragma unroll
            for (int r = 0; r < reach; r++)
                next[p][r] = there >> r & 1 ? *(const Loaded*)(at + ((long long)r * stride + p * given)) : Loaded{};
    };
    load(first - half);
    for (int column0 = first - half; column0 < end + half; column0 += side) {
        // Sums of the column `u` back from the newest lie at place (column - column0) of a ring.
#pragma unroll
        for (int u = 0; u < side; u++) {
            const int column = column0 + u;
            float now[parts][reach][2];
#pragma unroll
            for (int p = 0; p < parts; p++)
#pragma unroll
                for (int r = 0; r < reach; r++) widen(next[p][r], now[p][r]);
            load(column + 1);
#pragma unroll
            for (int p = 0; p < parts; p++)
#pragma unroll
                for (int r = 0; r < rows; r++)
#pragma unroll
                    for (int dy = 0; dy < side; dy++)
#pragma unroll
                        for (int s = 0; s < side; s++)
#pragma unroll
                            for (int i = 0; i < 2; i++)
                                sums[p][r][(u + s) % side][i] += now[p][r + dy][i] * taps[p][dy * side + side - 1 - s][i];
            // The oldest column has seen all.
            const int done = column - half;
            if (done >= first && done < end) {
#pragma unroll
                for (int r = 0; r < rows; r++) {
                    if (top + r >= m.height) continue;
                    float v[2] = {sums[0][r][u][0], sums[0][r][u][1]};
                    if constexpr (parts == 2) {
                        v[0] *= silu(sums[1][r][u][0]);
                        v[1] *= silu(sums[1][r][u][1]);
                    }
                    put2(y, ((line + r) * m.width + done) * given + channel, v);
                }
            }
#pragma unroll
            for (int p = 0; p < parts; p++)
#pragma unroll
                for (int r = 0; r < rows; r++)
#pragma unroll
                    for (int i = 0; i < 2; i++) sums[p][r][u][i] = start[p][i];
        }
    }
}
template <int side, int parts, int rows>
DEVICE void of_either(const Array& x, const float* w, const float* bias, const DepthwiseMap& m, const Array& y) {
    if (x.wide) sweep<float, side, parts, rows>((const float*)x.at, w, bias, m, y);
    else sweep<bf16, side, parts, rows>((const bf16*)x.at, w, bias, m, y);
}

// The sum of a channel at a pixel, from the bias on.
DEVICE float sum(const Array& x, const float* w, const float* bias, const DepthwiseMap& m, long long pixel, int channel) {
    const int left = pixel % m.width, top = pixel / m.width % m.height, half = m.side / 2;
    float v = bias ? bias[channel] : 0.0f;
    for (int dy = -half; dy <= half; dy++) {
        if ((unsigned)(top + dy) >= (unsigned)m.height) continue;
        for (int dx = -half; dx <= half; dx++) {
            if ((unsigned)(left + dx) >= (unsigned)m.width) continue;
            v += get(x, (pixel + (long long)dy * m.width + dx) * m.channels + channel)
                * w[((dy + half) * m.side + dx + half) * m.channels + channel];
        }
    }
    return v;
}
}  // namespace depthwise_parts

// w is [side, side, channels]. Channels are even. A block of 128: more threads have too few registers for a filter.
KERNEL(128, depthwise_3, Array x, const float* w, const float* bias, DepthwiseMap map, Array y) {
    take_turn();
    depthwise_parts::of_either<3, 1, 4>(x, w, bias, map, y);
}
KERNEL(128, depthwise_5, Array x, const float* w, const float* bias, DepthwiseMap map, Array y) {
    take_turn();
    depthwise_parts::of_either<5, 1, 4>(x, w, bias, map, y);
}
// The first half of the channels by SiLU of the second; y has half the channels, an even number.
KERNEL(128, depthwise_gate, Array x, const float* w, const float* bias, DepthwiseMap map, Array y) {
    take_turn();
    depthwise_parts::of_either<3, 2, 3>(x, w, bias, map, y);
}
// Any side and number of channels, a value a thread; gated where y has half the channels.
KERNEL(256, depthwise_any, Array x, const float* w, const float* bias, DepthwiseMap map, Array y, int given) {
    take_turn();
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, pixel = i / given;
    if (pixel >= (long long)map.pictures * map.height * map.width) return;
    const int channel = i % given;
    float v = depthwise_parts::sum(x, w, bias, map, pixel, channel);
    if (given < map.channels) v *= silu(depthwise_parts::sum(x, w, bias, map, pixel, channel + given));
    put(y, i, v);
}
