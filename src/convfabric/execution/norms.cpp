// Batch normalisation and a ReLU in one pass over each map where torch takes four, and the same on the way back.
//
// Maps are channels-last, (pixels, channels). Sums are taken in floats over a few pixels at a time, less the
// first pixel's values so that large means cost no digits, and in doubles over those.

#include <cmath>
#include <type_traits>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.hpp"

namespace {

constexpr int CHUNK = 64;

template <class T> inline Vector load_some(const T *from, int count) {
    if (count == LANES) return load(from);
    T values[LANES] = {};
    std::memcpy(values, from, count * sizeof(T));
    return load(values);
}

template <class T> inline void store_some(T *to, Vector v, int count) {
    if (count == LANES) return store(to, v);
    T values[LANES];
    store(values, v);
    std::memcpy(to, values, count * sizeof(T));
}

// Calls f with a count the compiler knows where a whole vector of channels is left.
template <class F> inline void with_count(int left, F f) {
    if (left >= LANES)
        f(std::integral_constant<int, LANES>());
    else
        f(left);
}

struct Shape {
    int64_t pixels;
    int channels, threads;
};

struct Norm {
    const float *weight, *bias;
    float epsilon;
};

// Two sums for each channel over all pixels; f(pixel, channel, count) gives what is added to them.
template <class F> void two_sums(const Shape &shape, double *first, double *second, F f) {
    std::vector<std::vector<double>> parts(shape.threads, std::vector<double>(2 * size_t(shape.channels), 0.0));
#pragma omp parallel for num_threads(shape.threads) schedule(static, 1)
    for (int t = 0; t < shape.threads; t++) {
        int64_t end = shape.pixels * (t + 1) / shape.threads;
        for (int64_t start = shape.pixels * t / shape.threads; start < end; start += CHUNK)
            for (int block = 0; block < shape.channels; block += LANES)
                with_count(shape.channels - block, [&](auto count) {
                    Vector one{}, two{};
                    for (int64_t p = start; p < std::min(end, start + CHUNK); p++) f(p, block, count, one, two);
                    for (int c = 0; c < count; c++) {
                        parts[t][block + c] += one[c];
                        parts[t][shape.channels + block + c] += two[c];
                    }
                });
    }
    for (int c = 0; c < shape.channels; c++) {
        first[c] = second[c] = 0;
        for (const auto &part : parts) first[c] += part[c], second[c] += part[shape.channels + c];
    }
}

template <class F> void each(const Shape &shape, F f) {
#pragma omp parallel for num_threads(shape.threads) schedule(static, 1)
    for (int t = 0; t < shape.threads; t++) {
        int64_t end = shape.pixels * (t + 1) / shape.threads;
        for (int64_t start = shape.pixels * t / shape.threads; start < end; start += CHUNK)
            for (int block = 0; block < shape.channels; block += LANES)
                with_count(shape.channels - block, [&](auto count) { f(start, std::min(end, start + CHUNK), block, count); });
    }
}

template <class T>
void normed(const T *x, const Norm &norm, const Shape &shape, T *y, float *mean, float *variance) {
    int channels = shape.channels;
    std::vector<double> sums(channels), squares(channels);
    std::vector<float> origin(channels), scale(channels), shift(channels);
    for (int c = 0; c < channels; c++) origin[c] = widened(x[c]);
    two_sums(shape, sums.data(), squares.data(), [&](int64_t p, int block, auto count, Vector &one, Vector &two) {
        Vector apart = load_some(x + p * channels + block, count) - load_some(origin.data() + block, count);
        one += apart;
        two += apart * apart;
    });
    for (int c = 0; c < channels; c++) {
        double apart = sums[c] / shape.pixels;
        mean[c] = float(origin[c] + apart);
        variance[c] = float(std::max(0.0, squares[c] / shape.pixels - apart * apart));
        scale[c] = norm.weight[c] / std::sqrt(variance[c] + norm.epsilon);
        shift[c] = norm.bias[c];
    }
    each(shape, [&](int64_t from, int64_t to, int block, auto count) {
        Vector times = load_some(scale.data() + block, count), plus = load_some(shift.data() + block, count);
        Vector middle = load_some(mean + block, count);
        for (int64_t p = from; p < to; p++) {
            Vector value = (load_some(x + p * channels + block, count) - middle) * times + plus;
            store_some(y + p * channels + block, value < 0.f ? Vector{} : value, count);
        }
    });
}

template <class T>
void unnormed(
    const T *wanted, const T *x, const Norm &norm, const float *mean, const float *variance, const Shape &shape, T *to,
    float *for_weight, float *for_bias) {
    int channels = shape.channels;
    std::vector<double> plain(channels), weighed(channels);
    std::vector<float> inverse(channels), scale(channels), level(channels), slope(channels);
    for (int c = 0; c < channels; c++) {
        inverse[c] = 1 / std::sqrt(variance[c] + norm.epsilon);
        scale[c] = norm.weight[c] / std::sqrt(variance[c] + norm.epsilon);
    }
    auto reached = [&](int64_t p, int block, auto count, Vector apart) {
        Vector value = apart * load_some(scale.data() + block, count) + load_some(norm.bias + block, count);
        return value > 0.f ? load_some(wanted + p * channels + block, count) : Vector{};
    };
    two_sums(shape, plain.data(), weighed.data(), [&](int64_t p, int block, auto count, Vector &one, Vector &two) {
        Vector apart = load_some(x + p * channels + block, count) - load_some(mean + block, count);
        Vector gradient = reached(p, block, count, apart);
        one += gradient;
        two += gradient * apart;
    });
    for (int c = 0; c < channels; c++) {
        for_bias[c] = float(plain[c]);
        for_weight[c] = float(weighed[c] * inverse[c]);
        level[c] = float(plain[c] / shape.pixels);
        slope[c] = float(weighed[c] / shape.pixels * inverse[c] * inverse[c]);
    }
    each(shape, [&](int64_t from, int64_t to_pixel, int block, auto count) {
        Vector times = load_some(scale.data() + block, count), less = load_some(level.data() + block, count);
        Vector middle = load_some(mean + block, count), tilt = load_some(slope.data() + block, count);
        for (int64_t p = from; p < to_pixel; p++) {
            Vector apart = load_some(x + p * channels + block, count) - middle;
            Vector value = times * (reached(p, block, count, apart) - less - apart * tilt);
            store_some(to + p * channels + block, value, count);
        }
    });
}

template <class T> void summed(const T *x, const Shape &shape, float *to) {
    std::vector<double> sums(shape.channels), unused(shape.channels);
    two_sums(shape, sums.data(), unused.data(), [&](int64_t p, int block, auto count, Vector &one, Vector &) {
        one += load_some(x + p * shape.channels + block, count);
    });
    std::copy(sums.begin(), sums.end(), to);
}

}  // namespace

// The sum over all pixels of each channel.
extern "C" void convfabric_channel_sums(
    const void *x, int64_t pixels, int channels, int half, int threads, float *to) {
    Shape shape{pixels, channels, threads};
    half ? summed(static_cast<const Half *>(x), shape, to) : summed(static_cast<const float *>(x), shape, to);
}

extern "C" void convfabric_norm_relu(
    const void *x, const float *weight, const float *bias, float epsilon, int64_t pixels, int channels, int half,
    int threads, void *y, float *mean, float *variance) {
    Norm norm{weight, bias, epsilon};
    Shape shape{pixels, channels, threads};
    if (half)
        normed(static_cast<const Half *>(x), norm, shape, static_cast<Half *>(y), mean, variance);
    else
        normed(static_cast<const float *>(x), norm, shape, static_cast<float *>(y), mean, variance);
}

extern "C" void convfabric_norm_relu_back(
    const void *wanted, const void *x, const float *weight, const float *bias, const float *mean, const float *variance,
    float epsilon, int64_t pixels, int channels, int half, int threads, void *to, float *for_weight, float *for_bias) {
    Norm norm{weight, bias, epsilon};
    Shape shape{pixels, channels, threads};
    if (half)
        unnormed(static_cast<const Half *>(wanted), static_cast<const Half *>(x), norm, mean, variance, shape,
                 static_cast<Half *>(to), for_weight, for_bias);
    else
        unnormed(static_cast<const float *>(wanted), static_cast<const float *>(x), norm, mean, variance, shape,
                 static_cast<float *>(to), for_weight, for_bias);
}
