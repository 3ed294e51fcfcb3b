// What follows the sums of a layer: bias, activation, gate, residual or shortcut, in this order.
#pragma once
#include "arrays.cuh"

enum { NO_RESIDUAL, ROWS_OF_RESIDUAL, SHORTCUT_UP, SHORTCUT_DOWN };
struct Steps {
    Array y;
    Array residual;     // a map of half or twice the size where it is a shortcut
    const float* bias;  // [columns], or null
    const float* gate;  // [rows / rows_per_gate, columns], or null: multiplies before the residual is added
    int rows_per_gate;
    int activation;
    int kind;           // of the residual
    int channels;       // of a shortcut's map
    int height, width;  // of y as a map, for shortcuts
};

// What a shortcut without parameters gives at a pixel (counted over all pictures) and channel of y. Up: channels
// repeated, then pixel shuffle. Down: pixel unshuffle, then means of neighbouring channels.
DEVICE float shortcut(const Steps& s, long long pixel, int channel, int columns) {
    const int x = pixel % s.width, y = pixel / s.width % s.height;
    const long long picture = pixel / ((long long)s.width * s.height);
    if (s.kind == SHORTCUT_UP) {
        long long at = (picture * (s.height / 2) + y / 2) * (s.width / 2) + x / 2;
        int repeated = 4 * columns / s.channels;
        return get(s.residual, at * s.channels + (4 * channel + y % 2 * 2 + x % 2) / repeated);
    }
    const int group = 4 * s.channels / columns;
    float sum = 0.0f;
    for (int i = 0; i < group; i++) {
        int j = channel * group + i;
        long long at = (picture * 2 * s.height + 2 * y + j % 4 / 2) * 2 * s.width + 2 * x + j % 2;
        sum += get(s.residual, at * s.channels + j / 4);
    }
    return sum / group;
}

// `count` of eight neighbouring columns of a row. Without MAPS there are no shortcuts, whose code is large.
template <bool MAPS = true> DEVICE void finish(const Steps& s, float (&v)[8], long long row, int column, int columns) {
    const long long at = row * columns + column;
    const bool whole = columns % 8 == 0;
    const int count = columns - column < 8 ? columns - column : 8;
    if (s.bias) {
#pragma unroll
        for (int j = 0; j < 8; j++) if (j < count) v[j] += s.bias[column + j];
    }
    if (s.activation) {
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = activate(s.activation, v[j]);
    }
    if (s.gate) {
        const float* gate = s.gate + row / s.rows_per_gate * columns + column;
#pragma unroll
        for (int j = 0; j < 8; j++) if (j < count) v[j] *= gate[j];
    }
    if (s.kind == ROWS_OF_RESIDUAL) {
        if (whole) {
            float other[8];
            get8(s.residual, at, other);
#pragma unroll
            for (int j = 0; j < 8; j++) v[j] += other[j];
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) if (j < count) v[j] += get(s.residual, at + j);
        }
    } else if (MAPS && s.kind != NO_RESIDUAL) {
#pragma unroll
        for (int j = 0; j < 8; j++) if (j < count) v[j] += shortcut(s, row, column + j, columns);
    }
    if (whole) {
        put8(s.y, at, v);
    } else {
#pragma unroll
        for (int j = 0; j < 8; j++) if (j < count) put(s.y, at + j, v[j]);
    }
}
