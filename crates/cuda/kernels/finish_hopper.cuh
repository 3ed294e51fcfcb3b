// What follows a tile of Hopper's products, with what it needs from memory read ahead.
#pragma once
#include "loaders.cuh"
#include "hopper.cuh"

// Where a tile's row goes: a row of y (-1: none), and of the map that is doubled.
struct Spot { int row, source; };

namespace hopper {
struct alignas(8) Pair { float v[2]; };
DEVICE void get_floats(const float* x, float (&v)[8]) {
    const Floats low = *(const Floats*)x, high = *(const Floats*)(x + 4);
#pragma unroll
    for (int j = 0; j < 4; j++) { v[j] = low.v[j]; v[j + 4] = high.v[j]; }
}
// Whether `finish_with` can be used; `doubled` of a map of which each pixel is a square.
DEVICE bool reads_ahead(const Steps& s, int columns, bool doubled) {
    const bool up = s.kind == SHORTCUT_UP && doubled && (s.channels == columns || s.channels == 2 * columns);
    return columns % 8 == 0 && s.activation <= GELU_TANH && (s.kind <= ROWS_OF_RESIDUAL || up);
}
// What is added to eight columns; `phase` is which pixel of a square.
DEVICE void read_added(const Steps& s, const Spot& spot, int phase, int column, int columns, float (&v)[8]) {
    if (spot.row < 0) return;
    if (s.kind == ROWS_OF_RESIDUAL) get8(s.residual, (long long)spot.row * columns + column, v);
    else if (s.channels == columns) get8(s.residual, (long long)spot.source * columns + column, v);
    else {
        // Each channel is repeated twice: every other of sixteen.
        float low[8], high[8];
        const long long at = (long long)spot.source * s.channels + 2 * column;
        get8(s.residual, at, low);
        get8(s.residual, at + 8, high);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            v[j] = phase < 2 ? low[2 * j] : low[2 * j + 1];
            v[j + 4] = phase < 2 ? high[2 * j] : high[2 * j + 1];
        }
    }
}
// What eight columns have in common over the rows of a tile: bias, and the gate where all rows have one.
struct Common {
    float bias[8], gate[8];
    bool gated;
    DEVICE Common(const Steps& s, int column, int columns, int group, bool mine) : bias{}, gated(s.gate && group >= 0) {
        if (s.bias && mine) get_floats(s.bias + column, bias);
        if (gated && mine) get_floats(s.gate + (long long)group * columns + column, gate);
    }
};
// As `finish`, with what is common and the residual given; the values go to place `at` of y.
DEVICE void finish_with(const Steps& s, float (&v)[8], const Common& common, const float (&added)[8], long long row, int column, int columns, long long at) {
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] += common.bias[j];
    if (s.activation == RELU) {
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = activate(RELU, v[j]);
    } else if (s.activation) {
        // Both are x sigmoid(factor x (1 + cube x^2)).
        const bool gelu = s.activation == GELU_TANH;
        const float factor = gelu ? -1.5957691216f : -1.0f, cube = gelu ? -0.0713548163f : 0.0f;
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = quick_quotient(v[j], 1.0f + quick_exponential(v[j] * (factor + cube * v[j] * v[j])));
    }
    if (common.gated) {
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] *= common.gate[j];
    } else if (s.gate) {
        float gate[8];
        get_floats(s.gate + row / s.rows_per_gate * columns + column, gate);
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] *= gate[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] += added[j];
    put8(s.y, at, v);
}
}  // namespace hopper
