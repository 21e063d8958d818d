// What the sparse kernels share: bands of channels, vectors, and responses laid out for them.
//
// An output channel reads the two to four input channels beside it (convfabric/operators/banded.py). Rows of a
// response are copied once into padded lines of floats in which "the channel beside" is an offset, so that equal,
// halved and doubled channel counts, borders, bfloat16 and counts that fill no vector all meet one inner loop.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Vector __attribute__((vector_size(4 * LANES)));
constexpr int BLOCK_ROWS = 8, TAPS = 9;
constexpr size_t MOST_LAID_OUT = 1 << 17;  // floats of a map that stays in a cache beside others

struct Half {
    uint16_t bits;
};
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

inline Vector load(const float *from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

inline Vector load(const Half *from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    Bits bits = __builtin_convertvector(halves, Bits) << 16;
    Vector v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

inline void store(float *to, Vector v) { std::memcpy(to, &v, sizeof v); }

// To the nearest, the even one of two; not-a-number stays one.
inline void store(Half *to, Vector v) {
    Bits bits;
    std::memcpy(&bits, &v, sizeof v);
    Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    Bits nan = Bits{} + 0x7fc0;
    Halves halves = __builtin_convertvector((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// Calls f with a count the compiler knows where a whole vector is left.
template <class F> inline void with_count(int left, F f) {
    if (left >= LANES)
        f(std::integral_constant<int, LANES>());
    else
        f(left);
}

inline float widened(float value) { return value; }

inline float widened(Half value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}

int floor_half(int value) { return value >= 0 ? value / 2 : (value - 1) / 2; }

// Which input channels an output channel reads, and how they are laid out beside it in a line.
struct Band {
    int in, out, width, planes;

    Band(int in, int out) : in(in), out(out) {
        width = in == out ? 3 : in > out ? 4 : 2;
        planes = in > out ? 2 : 1;
    }
    int start(int c) const { return in == out ? c - 1 : in > out ? 2 * c - 1 : floor_half(c - 1); }
    int plane(int tap) const { return in > out ? (tap + 1) % 2 : 0; }
    int offset(int tap) const {
        if (in == out) return tap - 1;
        if (in > out) return tap == 0 ? -1 : tap == 3 ? 1 : 0;
        return tap == 0 ? -1 : 1;
    }
    // Calls f(position in the stored kernels, tap, output, input) for each pair that exists, in stored order.
    template <class F> void pairs(F f) const {
        int position = 0;
        for (int c = 0; c < out; c++)
            for (int tap = 0; tap < width; tap++) {
                int n = start(c) + tap;
                if (n >= 0 && n < in) f(position++, tap, c, n);
            }
    }
    int tap_of(int c, int n) const { return n - start(c); }
};

int padded(int channels) { return (channels + LANES - 1) / LANES * LANES; }

struct Map {
    const void *data;  // of the first image; null for a response that never leaves this file
    int height, width, channels;
    int node = -1;  // the node whose response it is, where data is null
};

// One image of a map, and how far its rows and its pixels are apart.
template <class T> struct View {
    const T *data;
    std::ptrdiff_t row, pixel;
};

template <class T> View<T> view(const Map &map, int image) {
    std::ptrdiff_t row = std::ptrdiff_t(map.width) * map.channels;
    return {static_cast<const T *>(map.data) + image * map.height * row, row, map.channels};
}

// Some rows of one image, widened and padded: a column of zeros on either side, zeros between columns.
struct Lines {
    int first = 0, pitch = 0, columns = 0, planes = 0, in = 0, out = 0;
    std::vector<float> values;

    size_t plane() const { return size_t(columns + 2) * pitch; }

    float *at(int plane, int row, int column) {
        return values.data() + size_t(LANES) +
               ((size_t(row - first) * planes + plane) * (columns + 2) + column + 1) * pitch;
    }

    static size_t values_of(const Map &map, const Band &band) {
        return size_t(map.height) * band.planes * (map.width + 2) * (padded(band.out) + LANES);
    }

    bool fits(const Map &map, const Band &band) const {
        return columns == map.width && in == band.in && out == band.out;
    }

    // Room for some rows of a map, zeros where nothing is ever written.
    void lay_out(const Map &map, const Band &band, int from, int to) {
        bool same = fits(map, band);
        first = from, columns = map.width, planes = band.planes, pitch = padded(band.out) + LANES;
        in = band.in, out = band.out;
        size_t needed = size_t(std::max(to - from, 0)) * planes * (columns + 2) * pitch + 2 * LANES;
        if (!same || values.size() < needed) values.assign(needed, 0.f);
    }

    template <class T> void fill(const Map &map, const View<T> &view, const Band &band, int from, int to) {
        from = std::max(from, 0), to = std::min(to, map.height);
        lay_out(map, band, from, to);
        for (int row = from; row < to; row++) {
            const T *pixel = view.data + row * view.row;
            float *line = at(0, row, 0);
            for (int column = 0; column < columns; column++, pixel += view.pixel, line += pitch)
                spread(pixel, band, line, plane());
        }
    }

    template <class T> static void copy(const T *from, float *to, int count) {
        int c = 0;
        for (; c + LANES <= count; c += LANES) store(to + c, load(from + c));
        for (; c < count; c++) to[c] = widened(from[c]);
    }

    template <class T> static void spread(const T *pixel, const Band &band, float *line, size_t plane) {
        if (band.in == band.out)
            copy(pixel, line, band.out);
        else if (band.in > band.out)
            for (int c = 0; c < band.out; c++) {
                line[c] = widened(pixel[2 * c]);
                line[plane + c] = widened(pixel[2 * c + 1]);
            }
        else
            for (int n = 0; n < band.in; n++) line[2 * n] = line[2 * n + 1] = widened(pixel[n]);
    }
};

// The lines of one thread, kept from call to call: one set for each layout and each edge of a node, so that zeros
// stay where they are.
struct Desk {
    static constexpr size_t MOST = 64, KEPT_ALIKE = 3;
    std::vector<std::vector<std::unique_ptr<Lines>>> kept;

    // A whole map laid out for an edge, kept while nodes that read the same image still come.
    struct Whole {
        const void *data;
        int node, height;
        uint64_t used;
        Lines lines;
    };
    std::vector<std::unique_ptr<Whole>> wholes;
    uint64_t clock = 0, node_began = 0;

    static Desk &own() {
        thread_local Desk desk;
        return desk;
    }

    void begin_image() {
        if (wholes.size() > MOST) wholes.clear();
        for (auto &whole : wholes) whole->data = nullptr;
    }

    void begin_node() { node_began = clock; }

    // The map as it was laid out before, or laid out now in the place of one that this node does not read.
    template <class T> Lines &whole(const Map &map, const View<T> &view, const Band &band) {
        Whole *oldest = nullptr;
        size_t alike = 0;
        for (auto &one : wholes) {
            bool fits = one->lines.fits(map, band) && one->height == map.height;
            if (fits && one->data == view.data && one->node == map.node) return one->used = ++clock, one->lines;
            alike += fits;
            if (fits && one->used <= node_began && (!oldest || one->used < oldest->used)) oldest = one.get();
        }
        if (!oldest || alike < KEPT_ALIKE) {
            wholes.push_back(std::make_unique<Whole>());
            oldest = wholes.back().get();
        }
        oldest->data = view.data, oldest->node = map.node, oldest->height = map.height, oldest->used = ++clock;
        oldest->lines.fill(map, view, band, 0, map.height);
        return oldest->lines;
    }

    Lines &lines(size_t edge, const Map &map, const Band &band) {
        if (kept.size() <= edge) kept.resize(edge + 1);
        for (auto &found : kept[edge])
            if (found->fits(map, band)) return *found;
        if (kept[edge].size() == MOST) kept[edge].clear();
        kept[edge].push_back(std::make_unique<Lines>());
        return *kept[edge].back();
    }
};

}  // namespace
