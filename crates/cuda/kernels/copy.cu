// Values in another arrangement.
#include "arrays.cuh"

// Sides and strides in elements, outermost first.
struct Strides { long long sides[6], from[6], to[6]; };
KERNEL(256, copy_strided, Array x, Array y, long long count, Strides s) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    long long rest = i, from = 0, to = 0;
    for (int d = 5; d >= 0; d--) {
        long long at = rest % s.sides[d];
        rest /= s.sides[d];
        from += at * s.from[d];
        to += at * s.to[d];
    }
    put(y, to, get(x, from));
}

// y[i] is row rows[i] of x, `width` values long; rows beyond `known` give NaN.
KERNEL(256, gather_rows, Array x, const unsigned* rows, Array y, long long count, int width, int known) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const unsigned row = rows[i / width];
    put(y, i, row < (unsigned)known ? get(x, (long long)row * width + i % width) : to_f32({0x7fc0}));
}

// Means of `group` neighbours.
KERNEL(256, group_mean, Array x, Array y, long long count, int group) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float sum = 0.0f;
    for (int j = 0; j < group; j++) sum += get(x, i * group + j);
    put(y, i, sum / group);
}

// The filter [columns, 3, 3, channels] of a doubled map as four of 2 x 2 taps, [4, columns, 2, 2, channels]: taps that
// meet the same pixel are added.
KERNEL(256, filters_of_phases, Array w, Array y, int columns, int channels) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= 16LL * columns * channels) return;
    const int channel = i % channels, tap = i / channels % 4, phase = i / channels / 4 / columns;
    const long long column = i / channels / 4 % columns;
    float sum = 0.0f;
    for (int dy = 0; dy < 3; dy++) for (int dx = 0; dx < 3; dx++) {
        const bool meets = (dy + phase / 2 + 1) / 2 - phase / 2 == tap / 2 && (dx + phase % 2 + 1) / 2 - phase % 2 == tap % 2;
        if (meets) sum += get(w, ((column * 3 + dy) * 3 + dx) * channels + channel);
    }
    put(y, i, sum);
}
