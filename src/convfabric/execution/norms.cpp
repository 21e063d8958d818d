// Batch normalisation and a ReLU, leaky, capped or none, in one pass over each map where torch takes four, and the same
// on the way back.
//
// Maps are channels-last, (pixels, channels), and read in rows of as many whole pixels as fill whole vectors; the last row
// may be shorter. Sums are taken in floats over a few rows at a time, less the first pixel's values so that large
// means cost no digits, and in doubles over those.

#include <cmath>
#include <numeric>
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

struct Shape {
    int64_t pixels;
    int channels, threads;
    int row = std::lcm(channels, LANES);
    int64_t rows = pixels * channels / row;
    int left = int(pixels * channels - rows * row);

    // One value for each channel, repeated to fill a row.
    std::vector<float> tiled(const float *values) const {
        std::vector<float> found(row);
        for (int i = 0; i < row; i++) found[i] = values[i % channels];
        return found;
    }
};

struct Norm {
    const float *weight, *bias;
    float epsilon, slope, ceiling;
};

// Calls f(thread, first row, the row after the last, position in the row, count) for a few rows and a vector of their
// values at a time, by several threads. What follows the last whole row counts as one more.
template <class F> void each(const Shape &shape, F f) {
#pragma omp parallel for num_threads(shape.threads) schedule(static, 1)
    for (int t = 0; t < shape.threads; t++) {
        int64_t end = shape.rows * (t + 1) / shape.threads;
        for (int64_t from = shape.rows * t / shape.threads; from < end; from += CHUNK)
            for (int block = 0; block < shape.row; block += LANES)
                f(t, from, std::min(end, from + CHUNK), block, std::integral_constant<int, LANES>());
    }
    for (int block = 0; block < shape.left; block += LANES)
        f(0, shape.rows, shape.rows + 1, block, std::min(LANES, shape.left - block));
}

// Two sums for each channel over all pixels; f(position, position in the row, count) gives what is added to them.
template <class F> void two_sums(const Shape &shape, double *first, double *second, F f) {
    const int row = shape.row;
    std::vector<std::vector<double>> parts(shape.threads, std::vector<double>(2 * size_t(row), 0.0));
    each(shape, [&](int t, int64_t from, int64_t to, int block, auto count) {
        Vector one{}, two{};
        for (int64_t r = from; r < to; r++) f(r * row + block, block, count, one, two);
        for (int lane = 0; lane < count; lane++) {
            parts[t][block + lane] += one[lane];
            parts[t][row + block + lane] += two[lane];
        }
    });
    std::fill_n(first, shape.channels, 0.0), std::fill_n(second, shape.channels, 0.0);
    for (const auto &part : parts)
        for (int i = 0; i < row; i++) first[i % shape.channels] += part[i], second[i % shape.channels] += part[row + i];
}

template <class T>
void normed(const T *x, const Norm &norm, const Shape &shape, T *y, float *mean, float *variance) {
    int channels = shape.channels;
    std::vector<double> sums(channels), squares(channels);
    std::vector<float> origin(channels), scale(channels);
    for (int c = 0; c < channels; c++) origin[c] = widened(x[c]);
    std::vector<float> origins = shape.tiled(origin.data());
    two_sums(shape, sums.data(), squares.data(), [&](int64_t at, int block, auto count, Vector &one, Vector &two) {
        Vector apart = load_some(x + at, count) - load(&origins[block]);
        one += apart;
        two += apart * apart;
    });
    for (int c = 0; c < channels; c++) {
        double apart = sums[c] / shape.pixels;
        mean[c] = float(origin[c] + apart);
        variance[c] = float(std::max(0.0, squares[c] / shape.pixels - apart * apart));
        scale[c] = norm.weight[c] / std::sqrt(variance[c] + norm.epsilon);
    }
    std::vector<float> means = shape.tiled(mean), scales = shape.tiled(scale.data()), shifts = shape.tiled(norm.bias);
    each(shape, [&, row = shape.row](int, int64_t from, int64_t to, int block, auto count) {
        Vector middle = load(&means[block]), times = load(&scales[block]), plus = load(&shifts[block]);
        for (int64_t at = from * row + block; at < to * row; at += row) {
            Vector value = (load_some(x + at, count) - middle) * times + plus;
            value = value > norm.ceiling ? Vector{} + norm.ceiling : value;
            store_some(y + at, value < 0.f ? norm.slope * value : value, count);
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
    std::vector<float> means = shape.tiled(mean), scales = shape.tiled(scale.data()), shifts = shape.tiled(norm.bias);
    auto reached = [&](int64_t at, auto count, Vector apart, Vector times, Vector plus) {
        Vector gradient = load_some(wanted + at, count);
        Vector value = apart * times + plus;
        return value >= norm.ceiling ? Vector{} : value > 0.f ? gradient : norm.slope * gradient;
    };
    two_sums(shape, plain.data(), weighed.data(), [&](int64_t at, int block, auto count, Vector &one, Vector &two) {
        Vector apart = load_some(x + at, count) - load(&means[block]);
        Vector gradient = reached(at, count, apart, load(&scales[block]), load(&shifts[block]));
        one += gradient;
        two += gradient * apart;
    });
    for (int c = 0; c < channels; c++) {
        for_bias[c] = float(plain[c]);
        for_weight[c] = float(weighed[c] * inverse[c]);
        level[c] = float(plain[c] / shape.pixels);
        slope[c] = float(weighed[c] / shape.pixels * inverse[c] * inverse[c]);
    }
    std::vector<float> levels = shape.tiled(level.data()), slopes = shape.tiled(slope.data());
    each(shape, [&, row = shape.row](int, int64_t first, int64_t end, int block, auto count) {
        Vector middle = load(&means[block]), times = load(&scales[block]), plus = load(&shifts[block]);
        Vector less = load(&levels[block]), tilt = load(&slopes[block]);
        for (int64_t at = first * row + block; at < end * row; at += row) {
            Vector apart = load_some(x + at, count) - middle;
            Vector gradient = reached(at, count, apart, times, plus);
            store_some(to + at, times * (gradient - less - apart * tilt), count);
        }
    });
}

template <class T> void summed(const T *x, const Shape &shape, float *to) {
    std::vector<double> sums(shape.channels), unused(shape.channels);
    two_sums(shape, sums.data(), unused.data(), [&](int64_t at, int, auto count, Vector &one, Vector &) {
        one += load_some(x + at, count);
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
    const void *x, const float *weight, const float *bias, float epsilon, float slope, float ceiling, int64_t pixels, int channels,
    int half, int threads, void *y, float *mean, float *variance) {
    Norm norm{weight, bias, epsilon, slope, ceiling};
    Shape shape{pixels, channels, threads};
    if (half)
        normed(static_cast<const Half *>(x), norm, shape, static_cast<Half *>(y), mean, variance);
    else
        normed(static_cast<const float *>(x), norm, shape, static_cast<float *>(y), mean, variance);
}

extern "C" void convfabric_norm_relu_back(
    const void *wanted, const void *x, const float *weight, const float *bias, const float *mean, const float *variance,
    float epsilon, float slope, float ceiling, int64_t pixels, int channels, int half, int threads, void *to, float *for_weight, float *for_bias) {
    Norm norm{weight, bias, epsilon, slope, ceiling};
    Shape shape{pixels, channels, threads};
    if (half)
        unnormed(static_cast<const Half *>(wanted), static_cast<const Half *>(x), norm, mean, variance, shape,
                 static_cast<Half *>(to), for_weight, for_bias);
    else
        unnormed(static_cast<const float *>(wanted), static_cast<const float *>(x), norm, mean, variance, shape,
                 static_cast<float *>(to), for_weight, for_bias);
}
