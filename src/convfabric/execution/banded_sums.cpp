// Sums of banded 3×3 convolutions for the nodes of one layer, or of several in a row; also of the adjoints.
//
// Tiles of pixels by one vector of channels are summed in registers over every edge of a node. Maps are
// channels-last. No header of torch is needed; pointers and sizes come as tables of 64-bit integers.

#include <cstddef>
#include <utility>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.hpp"

namespace {

int64_t packed_size(const Band &band) { return int64_t(band.width) * TAPS * padded(band.out); }

// Kernels as the inner loop reads them: (tap of the band, 9, padded output channels).
std::vector<float> packed(const Band &band, const float *stored, bool adjoint) {
    int wide = padded(band.out);
    std::vector<float> weights(packed_size(band), 0.f);
    if (!adjoint) {
        band.pairs([&](int position, int tap, int c, int) {
            for (int k = 0; k < TAPS; k++) weights[(tap * TAPS + k) * wide + c] = stored[position * TAPS + k];
        });
        return weights;
    }
    Band(band.out, band.in).pairs([&](int position, int, int n, int c) {  // the edge itself, from c to n
        int tap = band.tap_of(c, n);
        for (int k = 0; k < TAPS; k++) weights[(tap * TAPS + k) * wide + c] = stored[position * TAPS + 8 - k];
    });
    return weights;
}

struct Arriving {
    Map from;
    int step;
    Band band;
    const float *weights;
};

struct Target {
    void *to;  // null for a response that never leaves this file
    int height, width, channels, level;
    const float *bias;
    bool relu;
    std::vector<Arriving> edges;

    Map map(int node) const { return {to, height, width, channels, node}; }
};

// What three kernel columns add to a tile of pixels of one row; `source` stands at the column of the tile.
template <int STEP, int... P>
[[gnu::always_inline]] inline void add_row(
    Vector *sums, const float *source, std::ptrdiff_t pitch, const float *w, int wide, std::integer_sequence<int, P...>) {
    Vector left = load(w), middle = load(w + wide), right = load(w + 2 * wide);
    if constexpr (STEP >= 0) {
        constexpr int stride = STEP + 1;
        ((sums[P] += left * load(source + (stride * P - 1) * pitch)), ...);
        ((sums[P] += middle * load(source + stride * P * pitch)), ...);
        ((sums[P] += right * load(source + (stride * P + 1) * pitch)), ...);
    } else {
        ((sums[P] += (P % 2 ? left : middle) * load(source + P / 2 * pitch)), ...);
        ((P % 2 ? void(sums[P] += right * load(source + (P / 2 + 1) * pitch)) : void()), ...);
    }
}

// The rows of the source that row `y` of the target reads, each with its row of the kernel.
inline int rows_read(int step, int y, int height, std::pair<int, int> *rows) {
    int count = 0;
    for (int k = 0; k < 3; k++) {
        int doubled = y + k - 1;
        if (step < 0 && doubled % 2) continue;
        int row = step == 0 ? doubled : step > 0 ? 2 * y + k - 1 : doubled / 2;
        if (row >= 0 && row < height) rows[count++] = {row, k};
    }
    return count;
}

// One row of a kernel on one row of a source.
struct Term {
    const float *source, *weights;
    std::ptrdiff_t pitch;
    int wide;
};

// All that one row of a target reads, by the steps of the edges: up, same, down.
struct Terms {
    std::vector<Term> by_step[3];

    void collect(const Target &target, const std::vector<Lines *> &lines, int y) {
        for (auto &terms : by_step) terms.clear();
        for (size_t e = 0; e < target.edges.size(); e++) {
            const Arriving &edge = target.edges[e];
            int wide = padded(edge.band.out);
            std::pair<int, int> rows[3];
            int count = rows_read(edge.step, y, edge.from.height, rows);
            for (int r = 0; r < count; r++)
                for (int tap = 0; tap < edge.band.width; tap++)
                    by_step[edge.step + 1].push_back(
                        {lines[e]->at(edge.band.plane(tap), rows[r].first, 0) + edge.band.offset(tap),
                         edge.weights + (tap * TAPS + 3 * rows[r].second) * wide, lines[e]->pitch, wide});
        }
    }
};

template <class T> inline void write(T *to, Vector sum, const float *bias, bool relu, int count) {
    float values[LANES];
    if (bias && count == LANES) sum += load(bias);
    if (bias && count < LANES) {
        std::memcpy(values, bias, count * sizeof(float));
        sum += load(values);
    }
    if (relu) sum = sum < 0.f ? Vector{} : sum;
    if (count == LANES) return store(to, sum);
    T some[LANES];
    store(some, sum);
    std::memcpy(to, some, count * sizeof(T));
}

// A row of a target, where its pixels are so far apart.
template <class T> struct Row {
    T *data;
    std::ptrdiff_t pixel;
};

template <class T, int... P>
void tile(
    const Target &target, const Terms &terms, int x, int block, Row<T> row, std::integer_sequence<int, P...> pixels) {
    Vector sums[sizeof...(P)] = {};
    for (const Term &term : terms.by_step[0])
        add_row<-1>(sums, term.source + x / 2 * term.pitch + block, term.pitch, term.weights + block, term.wide, pixels);
    for (const Term &term : terms.by_step[1])
        add_row<0>(sums, term.source + x * term.pitch + block, term.pitch, term.weights + block, term.wide, pixels);
    for (const Term &term : terms.by_step[2])
        add_row<1>(sums, term.source + 2 * x * term.pitch + block, term.pitch, term.weights + block, term.wide, pixels);
    const float *bias = target.bias ? target.bias + block : nullptr;
    T *to = row.data + x * row.pixel + block;
    (write(to + P * row.pixel, sums[P], bias, target.relu, std::min(LANES, target.channels - block)), ...);
}

// As many tiles of a width as there is room for.
template <int WIDTH, class T> int tiles(const Target &target, const Terms &terms, int x, int block, Row<T> row) {
    for (; x + WIDTH <= target.width; x += WIDTH)
        tile(target, terms, x, block, row, std::make_integer_sequence<int, WIDTH>());
    return x;
}

// Where responses stand that are only passed on: in lines that nodes of one shape share, each after the last
// reader of the one before.
struct Passing {
    std::vector<int> slot;  // by node; -1 where the response is asked for
    std::vector<int> first; // by slot, the first node that stands there

    explicit Passing(const std::vector<Target> &targets) {
        std::vector<int> last(targets.size(), 0), busy;
        for (const Target &target : targets)
            for (const Arriving &edge : target.edges)
                if (edge.from.node >= 0) last[edge.from.node] = std::max(last[edge.from.node], target.level);
        for (size_t n = 0; n < targets.size(); n++) {
            slot.push_back(-1);
            if (targets[n].to) continue;
            for (size_t s = 0; s < first.size() && slot[n] < 0; s++) {
                const Target &other = targets[first[s]];
                bool alike = other.height == targets[n].height && other.width == targets[n].width &&
                             other.channels == targets[n].channels;
                if (alike && busy[s] < targets[n].level) slot[n] = int(s);
            }
            if (slot[n] < 0) slot[n] = int(first.size()), first.push_back(int(n)), busy.push_back(0);
            busy[slot[n]] = last[n];
        }
    }

    void lay_out(const std::vector<Target> &targets, std::vector<Lines> &lines) const {
        if (lines.size() < first.size()) lines.resize(first.size());
        for (size_t s = 0; s < first.size(); s++) {
            const Target &target = targets[first[s]];
            lines[s].lay_out(target.map(-1), Band(target.channels, target.channels), 0, target.height);
        }
    }
};

// One image's responses, as a thread finds them.
struct Image {
    const std::vector<Target> &targets;
    const Passing &passing;
    std::vector<Lines> &passed;
    int number;

    Lines *lines(int node) const { return node < 0 || passing.slot[node] < 0 ? nullptr : &passed[passing.slot[node]]; }

    template <class T, class F> void seen(const Map &map, F f) const {
        if (Lines *kept = lines(map.node))
            f(View<float>{kept->at(0, 0, 0), std::ptrdiff_t(kept->plane()), kept->pitch});
        else
            f(view<T>(map, number));
    }
};

// The lines that the edges of a node read for some of its rows.
template <class T> struct Reading {
    const Target &target;
    const Image &image;
    Desk &desk;
    std::vector<Lines *> lines;

    Reading(const Target &target, const Image &image, Desk &desk) : target(target), image(image), desk(desk) {
        desk.begin_node();
        for (const Arriving &edge : target.edges) {
            Lines *passed = edge.band.in == edge.band.out ? image.lines(edge.from.node) : nullptr;
            lines.push_back(passed);
            if (!passed && small(edge))
                image.seen<T>(edge.from, [&](auto view) { lines.back() = &desk.whole(edge.from, view, edge.band); });
        }
    }

    static bool small(const Arriving &edge) { return Lines::values_of(edge.from, edge.band) <= MOST_LAID_OUT; }

    void prepare(int start, int end) {
        for (size_t e = 0; e < target.edges.size(); e++) {
            const Arriving &edge = target.edges[e];
            if (small(edge) || (edge.band.in == edge.band.out && image.lines(edge.from.node))) continue;
            int first = edge.step == 0 ? start - 1 : edge.step > 0 ? 2 * start - 1 : start / 2;
            int last = edge.step == 0 ? end + 1 : edge.step > 0 ? 2 * end : end / 2 + 1;
            lines[e] = &desk.lines(e, edge.from, edge.band);
            image.seen<T>(edge.from, [&](auto view) { lines[e]->fill(edge.from, view, edge.band, first, last); });
        }
    }
};

// Some rows of a target; row(y) says where one goes.
template <class T, class F> void rows(Reading<T> reading, int from, int to, F row) {
    thread_local Terms read[BLOCK_ROWS];
    const Target &target = reading.target;
    for (int start = from; start < to; start += BLOCK_ROWS) {
        int end = std::min(start + BLOCK_ROWS, to);
        reading.prepare(start, end);
        for (int y = start; y < end; y++) read[y - start].collect(target, reading.lines, y);
        for (int block = 0; block < target.channels; block += LANES)
            for (int y = start; y < end; y++) {
                const Terms &terms = read[y - start];
                int x = tiles<8>(target, terms, 0, block, row(y));
                x = tiles<4>(target, terms, x, block, row(y));
                x = tiles<2>(target, terms, x, block, row(y));
                tiles<1>(target, terms, x, block, row(y));
            }
    }
}

template <class T> void node(const Image &image, int number, Desk &desk, int from, int to) {
    if (from >= to) return;
    const Target &target = image.targets[number];
    Reading<T> reading(target, image, desk);
    if (Lines *kept = image.lines(number)) {
        rows(reading, from, to, [&](int y) { return Row<float>{kept->at(0, y, 0), kept->pitch}; });
        return;
    }
    size_t across = size_t(target.width) * target.channels;
    T *first = static_cast<T *>(target.to) + image.number * target.height * across;
    rows(reading, from, to, [&](int y) { return Row<T>{first + y * across, target.channels}; });
}

// Images are shared among threads, each of which takes one through all nodes while it is in its cache; where
// there are fewer images than threads, the rows of each node are, and threads wait for each other at every level.
template <class T> void sums(const std::vector<Target> &targets, int images, int threads) {
    bool by_image = images >= threads;
    Passing passing(targets);
    thread_local std::vector<Lines> of_all;
    if (!by_image) passing.lay_out(targets, of_all);
    std::vector<Lines> &shared = of_all;
#pragma omp parallel num_threads(threads)
    {
#ifdef _OPENMP
        int t = omp_get_thread_num(), team = omp_get_num_threads();
#else
        int t = 0, team = 1;
#endif
        thread_local std::vector<Lines> own;
        if (by_image) passing.lay_out(targets, own);
        Desk &desk = Desk::own();
        int first = by_image ? int64_t(images) * t / team : 0, last = by_image ? int64_t(images) * (t + 1) / team : images;
        for (int number = first; number < last; number++) {
            Image image{targets, passing, by_image ? own : shared, number};
            desk.begin_image();
            for (size_t n = 0; n < targets.size(); n++) {
                if (!by_image && (n == 0 || targets[n].level != targets[n - 1].level)) {
#pragma omp barrier
                }
                int height = targets[n].height;
                node<T>(image, int(n), desk, by_image ? 0 : height * t / team, by_image ? height : height * (t + 1) / team);
            }
        }
    }
}

enum Form { STORED, ADJOINT, PACKED };
enum What { KEPT = 1, RELU = 2 };

}  // namespace

// How many floats the packed kernels of an edge take.
extern "C" int64_t convfabric_packed_size(int in, int out) {
    return packed_size(Band(in, out));
}

extern "C" void convfabric_pack(int in, int out, const float *stored, float *to) {
    std::vector<float> weights = packed(Band(in, out), stored, false);
    std::memcpy(to, weights.data(), weights.size() * sizeof(float));
}

// As the operator of torch has them (execution/sparse.py). Maps: [data, height, width, channels] each; kernels and
// biases: where they lie, biases perhaps none, each one after another where they are packed; results: where the
// sums of the nodes that are kept go.
extern "C" void convfabric_sums(
    const int64_t *maps, int map_count, const int64_t *kernels, const int64_t *biases, const int64_t *wiring, int length,
    const int64_t *results, int images, int half, int form, int threads) {
    std::vector<Target> targets;
    std::vector<std::vector<float>> weights;
    auto next = reinterpret_cast<const float *>(kernels[0]);
    auto constant = reinterpret_cast<const float *>(biases ? biases[0] : 0);
    for (const int64_t *end = wiring + length; wiring < end;) {
        void *to = wiring[3] & KEPT ? reinterpret_cast<void *>(*results++) : nullptr;
        if (biases && form != PACKED) constant = reinterpret_cast<const float *>(biases[targets.size()]);
        Target target{to, int(wiring[0]), int(wiring[1]), int(wiring[2]), 0, constant, (wiring[3] & RELU) != 0, {}};
        int64_t count = wiring[4];
        for (wiring += 5; count > 0; count--, wiring += 3) {
            Map from;
            if (wiring[0] < map_count) {
                const int64_t *map = maps + 4 * wiring[0];
                from = {reinterpret_cast<const void *>(map[0]), int(map[1]), int(map[2]), int(map[3])};
            } else {
                int node = int(wiring[0]) - map_count;
                from = targets[node].map(node);
                target.level = std::max(target.level, targets[node].level + 1);
            }
            Band band(from.channels, target.channels);
            if (form != PACKED) {
                auto stored = reinterpret_cast<const float *>(kernels[wiring[1]]);
                weights.push_back(packed(band, stored, form == ADJOINT));
                next = weights.back().data();
            }
            target.edges.push_back({from, int(wiring[2]), band, next});
            if (form == PACKED) next += packed_size(band);
        }
        if (constant && form == PACKED) constant += target.channels;
        targets.push_back(std::move(target));
    }
    half ? sums<Half>(targets, images, threads) : sums<float>(targets, images, threads);
}
