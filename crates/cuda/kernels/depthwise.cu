// A filter a channel over channels-last maps; the size stays.
#include "arrays.cuh"

struct DepthwiseMap { int pictures, height, width, channels, side; };
namespace depthwise_parts {
// The sums of `count` channels at a pixel, from the bias on; the filter is [side, side, channels].
template <int count>
DEVICE void sums(const Array& x, const float* w, const float* bias, const DepthwiseMap& m, long long pixel, int channel, float (&v)[count]) {
    const int left = pixel % m.width, top = pixel / m.width % m.height, half = m.side / 2;
    for (int j = 0; j < count; j++) v[j] = bias ? bias[channel + j] : 0.0f;
    for (int dy = -half; dy <= half; dy++) {
        if ((unsigned)(top + dy) >= (unsigned)m.height) continue;
        for (int dx = -half; dx <= half; dx++) {
            if ((unsigned)(left + dx) >= (unsigned)m.width) continue;
            const float* taps = w + (long long)((dy + half) * m.side + dx + half) * m.channels + channel;
            const long long from = (pixel + (long long)dy * m.width + dx) * m.channels + channel;
            if constexpr (count == 8) {
                float u[8];
                get8(x, from, u);
                for (int j = 0; j < 8; j++) v[j] += u[j] * taps[j];
            } else {
                v[0] += get(x, from) * taps[0];
            }
        }
    }
}
template <int count> DEVICE void store(const Array& y, long long at, const float (&v)[count]) {
    if constexpr (count == 8) put8(y, at, v);
    else put(y, at, v[0]);
}
template <int count>
DEVICE void depthwise(const Array& x, const float* w, const float* bias, const DepthwiseMap& m, const Array& y) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, chunks = m.channels / count;
    const long long pixel = i / chunks;
    if (pixel >= (long long)m.pictures * m.height * m.width) return;
    const int channel = i % chunks * count;
    float v[count];
    sums<count>(x, w, bias, m, pixel, channel, v);
    store<count>(y, pixel * m.channels + channel, v);
}
template <int count>
DEVICE void gate(const Array& x, const float* w, const float* bias, const DepthwiseMap& m, const Array& y) {
    const int half = m.channels / 2, chunks = half / count;
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x, pixel = i / chunks;
    if (pixel >= (long long)m.pictures * m.height * m.width) return;
    const int channel = i % chunks * count;
    float value[count], gates[count];
    sums<count>(x, w, bias, m, pixel, channel, value);
    sums<count>(x, w, bias, m, pixel, channel + half, gates);
    for (int j = 0; j < count; j++) value[j] *= silu(gates[j]);
    store<count>(y, pixel * half + channel, value);
}
}  // namespace depthwise_parts

// Eight channels a thread where they divide by eight, else one.
KERNEL(256, depthwise, Array x, const float* w, const float* bias, DepthwiseMap map, Array y) {
    if (map.channels % 8 == 0) depthwise_parts::depthwise<8>(x, w, bias, map, y);
    else depthwise_parts::depthwise<1>(x, w, bias, map, y);
}
// The first half of the channels by SiLU of the second; y has half the channels.
KERNEL(256, depthwise_gate, Array x, const float* w, const float* bias, DepthwiseMap map, Array y) {
    if (map.channels % 16 == 0) depthwise_parts::gate<8>(x, w, bias, map, y);
    else depthwise_parts::gate<1>(x, w, bias, map, y);
}
