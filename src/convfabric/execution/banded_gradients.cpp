// The gradients of the kernels of banded 3×3 convolutions.

#include "kernels.hpp"

namespace {

struct Learnt {
    Map from, gradient;
    int step;
    Band band;
    float *to;
};

// Adds to (band.width, 9, padded channels) what some rows of the coarser of two maps, or of either, contribute.
template <int WIDTH>
void learn_rows(const Learnt &edge, Lines &source, Lines &gradient, int from, int to, float *found) {
    int wide = padded(edge.band.out), across = edge.step < 0 ? edge.from.width : edge.gradient.width;
    for (int block = 0; block < edge.band.out; block += LANES)
        for (int k = 0; k < 3; k++) {
            Vector sums[WIDTH][3] = {};
            for (int y = from; y < to; y++) {
                int row = edge.step == 0 ? y + k - 1 : edge.step > 0 ? 2 * y + k - 1 : y;
                int reached = edge.step < 0 ? 2 * y + 1 - k : y;
                if (row < 0 || row >= edge.from.height || reached < 0 || reached >= edge.gradient.height) continue;
                const float *lines[WIDTH];
                for (int tap = 0; tap < WIDTH; tap++)
                    lines[tap] = source.at(edge.band.plane(tap), row, 0) + block + edge.band.offset(tap);
                const float *wanted = gradient.at(0, reached, 0) + block;
                int pitch = source.pitch, stride = edge.step > 0 ? 2 * pitch : pitch;
                if (edge.step < 0) {
                    for (int x = 0; x < across; x++) {
                        Vector after = load(wanted + (2 * x + 1) * pitch), at = load(wanted + 2 * x * pitch);
                        Vector before = load(wanted + (2 * x - 1) * pitch);
                        for (int tap = 0; tap < WIDTH; tap++) {
                            Vector value = load(lines[tap] + x * pitch);
                            sums[tap][0] += after * value;
                            sums[tap][1] += at * value;
                            sums[tap][2] += before * value;
                        }
                    }
                } else {
                    for (int x = 0; x < across; x++) {
                        Vector at = load(wanted + x * pitch);
                        for (int tap = 0; tap < WIDTH; tap++) {
                            const float *value = lines[tap] + x * stride;
                            sums[tap][0] += at * load(value - pitch);
                            sums[tap][1] += at * load(value);
                            sums[tap][2] += at * load(value + pitch);
                        }
                    }
                }
            }
            for (int tap = 0; tap < WIDTH; tap++)
                for (int column = 0; column < 3; column++) {
                    float *place = found + (tap * TAPS + 3 * k + column) * wide + block;
                    store(place, load(place) + sums[tap][column]);
                }
        }
}

template <class T> void learn_image(const Learnt &edge, Desk &desk, int image, float *found) {
    Band own(edge.gradient.channels, edge.gradient.channels);
    Lines &source = desk.lines(0, edge.from, edge.band), &gradient = desk.lines(1, edge.gradient, own);
    int height = edge.step < 0 ? edge.from.height : edge.gradient.height;
    View<T> given = view<T>(edge.from, image), wanted = view<T>(edge.gradient, image);
    for (int from = 0; from < height; from += BLOCK_ROWS) {
        int to = std::min(from + BLOCK_ROWS, height);
        if (edge.step < 0) {
            source.fill(edge.from, given, edge.band, from, to);
            gradient.fill(edge.gradient, wanted, own, 2 * from - 1, 2 * to);
        } else {
            int first = edge.step == 0 ? from - 1 : 2 * from - 1, last = edge.step == 0 ? to + 1 : 2 * to;
            source.fill(edge.from, given, edge.band, first, last);
            gradient.fill(edge.gradient, wanted, own, from, to);
        }
        if (edge.band.width == 2) learn_rows<2>(edge, source, gradient, from, to, found);
        if (edge.band.width == 3) learn_rows<3>(edge, source, gradient, from, to, found);
        if (edge.band.width == 4) learn_rows<4>(edge, source, gradient, from, to, found);
    }
}

template <class T> void learn(const std::vector<Learnt> &edges, int images, int threads) {
    std::vector<size_t> starts(1, 0);
    for (const Learnt &edge : edges) starts.push_back(starts.back() + edge.band.width * TAPS * padded(edge.band.out));
    std::vector<std::vector<float>> found(threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        found[t].assign(starts.back(), 0.f);
        Desk &desk = Desk::own();
        for (int image = int64_t(images) * t / threads; image < int64_t(images) * (t + 1) / threads; image++)
            for (size_t e = 0; e < edges.size(); e++)
                learn_image<T>(edges[e], desk, image, found[t].data() + starts[e]);
    }
    for (size_t e = 0; e < edges.size(); e++)
        edges[e].band.pairs([&](int position, int tap, int c, int) {
            for (int k = 0; k < TAPS; k++) {
                float sum = 0;
                for (const auto &part : found) sum += part[starts[e] + (tap * TAPS + k) * padded(edges[e].band.out) + c];
                edges[e].to[position * TAPS + k] = sum;
            }
        });
}

}  // namespace

// Edge: [from, height, width, channels, step, gradient of the result, its height, width, channels, to].
extern "C" void convfabric_learn(const int64_t *edges, int count, int images, int half, int threads) {
    std::vector<Learnt> learnt;
    for (int e = 0; e < count; e++, edges += 10)
        learnt.push_back({{reinterpret_cast<const void *>(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])},
                          {reinterpret_cast<const void *>(edges[5]), int(edges[6]), int(edges[7]), int(edges[8])},
                          int(edges[4]), Band(int(edges[3]), int(edges[8])),
                          reinterpret_cast<float *>(edges[9])});
    half ? learn<Half>(learnt, images, threads) : learn<float>(learnt, images, threads);
}
