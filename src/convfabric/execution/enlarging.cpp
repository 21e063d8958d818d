// Maps drawn larger by linear interpolation, and gradients drawn small again: each value is a weighed sum of a few
// neighbours along one axis, then along the other.
//
// Maps are channels-last. Where a vector is wider than a pixel, what it writes beyond is overwritten by the next pixel.

#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.hpp"

namespace {

// Of one axis: result i is the sum of weights[i * count + j] times value first[i] + j.
struct Taps {
    int results, count;
    const int32_t *first;
    const float *weights;
};

void weigh_rows(const float *map, int values, const Taps &taps, int row, float *to) {
    const float *weights = taps.weights + row * taps.count, *from = map + int64_t(taps.first[row]) * values;
    for (int v = 0; v < values; v += LANES) {
        Vector sum{};
        if (v + LANES <= values)
            for (int tap = 0; tap < taps.count; tap++) sum += weights[tap] * load(from + int64_t(tap) * values + v);
        else
            for (int tap = 0; tap < taps.count; tap++)
                for (int lane = 0; lane < values - v; lane++)
                    sum[lane] += weights[tap] * from[int64_t(tap) * values + v + lane];
        store(to + v, sum);
    }
}

void weigh_columns(const float *line, int channels, const Taps &taps, float *to) {
    for (int x = 0; x < taps.results; x++) {
        const float *weights = taps.weights + x * taps.count, *from = line + taps.first[x] * channels;
        for (int block = 0; block < channels; block += LANES) {
            Vector sum{};
            for (int tap = 0; tap < taps.count; tap++) sum += weights[tap] * load(from + tap * channels + block);
            store(to + x * channels + block, sum);
        }
    }
}

}  // namespace

extern "C" void convfabric_weighed(
    const float *maps, int images, int height, int width, int channels, int rows, int row_taps, const int32_t *row_first,
    const float *row_weights, int columns, int column_taps, const int32_t *column_first, const float *column_weights,
    int threads, float *to) {
    Taps down{rows, row_taps, row_first, row_weights}, across{columns, column_taps, column_first, column_weights};
    int64_t lines = int64_t(images) * rows;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        std::vector<float> line(size_t(width) * channels + LANES), drawn(size_t(columns) * channels + LANES);
        for (int64_t n = lines * t / threads; n < lines * (t + 1) / threads; n++) {
            weigh_rows(maps + n / rows * height * width * channels, width * channels, down, int(n % rows), line.data());
            weigh_columns(line.data(), channels, across, drawn.data());
            std::memcpy(to + n * columns * channels, drawn.data(), size_t(columns) * channels * sizeof(float));
        }
    }
}
