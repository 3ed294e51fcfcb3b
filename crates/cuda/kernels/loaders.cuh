// Where the left operand of a product comes from, in chunks of 16 bytes along the depth.
#pragma once
#include "epilogue.cuh"

// Rows of a matrix; `depth` divides by a chunk.
template <class T> struct Matrix {
    const T* x;
    int rows, depth;
    struct Row { const T* at; bool inside; };
    DEVICE Row row(int r) const { return {x + (long long)(r < rows ? r : 0) * depth, r < rows}; }
    DEVICE const T* chunk(const Row& row, int k, bool& inside) const {
        inside = row.inside && k < depth;
        return row.at + k;
    }
    DEVICE long long place(int r) const { return r; }
};

// The map a convolution reads, and how.
struct Window {
    int pictures, height, width, channels;  // of what is read
    int rows, columns;                      // of positions that the filter takes
    int side, stride, top, left;            // top and left: zeros before the first row and column
    int phases;                             // 4: the map is doubled, four filters give the four pixels of a square; else 1
};

// A position of the filter a row, its taps along the depth (tap, channel); outside the map are zeros.
template <class T> struct Taps {
    const T* x;
    Window w;
    int down, right;  // of the phase
    struct Row { const T* at; int y, x; bool inside; };
    DEVICE Taps(const T* x, const Window& window, int phase) : x(x), w(window), down(0), right(0) {
        if (w.phases == 4) {
            down = phase / 2;
            right = phase % 2;
            w.top -= down;
            w.left -= right;
        }
    }
    DEVICE int rows() const { return w.pictures * w.rows * w.columns; }
    DEVICE int depth() const { return w.side * w.side * w.channels; }
    DEVICE Row row(int r) const {
        bool inside = r < rows();
        int at = inside ? r : 0;
        int column = at % w.columns * w.stride - w.left, line = at / w.columns % w.rows * w.stride - w.top;
        return {x + (long long)(at / (w.columns * w.rows)) * w.height * w.width * w.channels, line, column, inside};
    }
    DEVICE const T* chunk(const Row& row, int k, bool& inside) const {
        int tap = k / w.channels, y = row.y + tap / w.side, left = row.x + tap % w.side;
        inside = row.inside && tap < w.side * w.side && (unsigned)y < (unsigned)w.height && (unsigned)left < (unsigned)w.width;
        return row.at + ((long long)y * w.width + left) * w.channels + (k - tap * w.channels);
    }
    DEVICE long long place(int r) const {
        if (w.phases == 1) return r;
        long long picture = r / (w.columns * w.rows);
        int y = r / w.columns % w.rows, x = r % w.columns;
        return (picture * 2 * w.rows + 2 * y + down) * 2 * w.columns + 2 * x + right;
    }
};
