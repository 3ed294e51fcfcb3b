// Values in another arrangement.
#include "arrays.cuh"

// Sides and strides in elements, outermost first; those before the `first` side are one.
struct Strides { long long from[6], to[6]; int sides[6], first; };
DEVICE void places(const Strides& s, unsigned i, long long& from, long long& to) {
    from = to = 0;
#pragma unroll
    for (int d = 5; d >= 0; d--) {
        if (d < s.first) break;
        const unsigned rest = i / (unsigned)s.sides[d], at = i - rest * s.sides[d];
        from += at * s.from[d];
        to += at * s.to[d];
        i = rest;
    }
}
KERNEL(256, copy_strided, Array x, Array y, unsigned count, Strides s) {
    take_turn();
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    long long from, to;
    places(s, i, from, to);
    put(y, to, get(x, from));
}
// Eight neighbours at a time, in which the last side is counted.
KERNEL(256, copy_eights, Array x, Array y, unsigned count, Strides s) {
    take_turn();
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    long long from, to;
    places(s, i, from, to);
    float v[8];
    get8(x, from, v);
    put8(y, to, v);
}

// y[i] is row rows[i] of x, `width` values long; rows beyond `known` give NaN. Eight at a time where `width` divides by
// it.
KERNEL(256, gather_rows, Array x, const unsigned* rows, Array y, long long count, int width, int known) {
    take_turn();
    const int each = width % 8 == 0 ? 8 : 1;
    const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * each;
    if (i >= count) return;
    const long long at = i / width, column = i - at * width;
    const unsigned row = rows[at];
    if (each == 8) {
        float v[8];
        for (int j = 0; j < 8; j++) v[j] = to_f32({0x7fc0});
        if (row < (unsigned)known) get8(x, (long long)row * width + column, v);
        put8(y, i, v);
        return;
    }
    put(y, i, row < (unsigned)known ? get(x, (long long)row * width + column) : to_f32({0x7fc0}));
}

// Means of `group` neighbours.
KERNEL(256, group_mean, Array x, Array y, long long count, int group) {
    take_turn();
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float sum = 0.0f;
    for (int j = 0; j < group; j++) sum += get(x, i * group + j);
    put(y, i, sum / group);
}

// The filter [columns, 3, 3, channels] of a doubled map as four of 2 x 2 taps, [4, columns, 2, 2, channels]: taps that
// meet the same pixel are added.
KERNEL(256, filters_of_phases, Array w, Array y, int columns, int channels) {
    take_turn();
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
