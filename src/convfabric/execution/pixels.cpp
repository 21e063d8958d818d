// The loss of each pixel and its gradient in one pass over the logits, where torch takes some twenty.
//
// Logits are channels-last, (pixels, classes). A vector holds one class of LANES pixels beside one another.

#include <cmath>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.hpp"

namespace {

typedef int32_t Whole __attribute__((vector_size(4 * LANES)));

// e^x for x <= 0, to 2e-7 of it, by e^x = 2^n e^r with |r| <= ln(2)/2 and the series of e^r; 0 below 2^-126.
inline Vector exponential(Vector x) {
    constexpr float LOG2_E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f, ROUNDING = 12582912.f;
    x = x < -87.f ? Vector{} - 87.f : x;
    Vector n = (x * LOG2_E + ROUNDING) - ROUNDING;
    Vector r = x - n * LN2_HIGH - n * LN2_LOW;
    Vector sum = Vector{} + 1.f / 5040;
    for (float term : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) sum = sum * r + term;
    Whole bits = (__builtin_convertvector(n, Whole) + 127) << 23;
    Vector power;
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

inline Vector logarithm(Vector x) {
    for (int lane = 0; lane < LANES; lane++) x[lane] = std::log(x[lane]);
    return x;
}

// Some pixels' answers: logits less the largest, the probabilities they stand for, and the logarithm of their sum.
struct Answers {
    int classes;
    std::vector<float> turned;
    std::vector<Vector> logits, shares;
    Vector log_sum;

    explicit Answers(int classes)
        : classes(classes), turned(size_t(classes) * LANES), logits(classes), shares(classes) {}

    template <class Count> void read(const float *from, Count pixels) {
        for (int k = 0; k < classes; k++)
            for (int lane = 0; lane < pixels; lane++) turned[k * LANES + lane] = from[int64_t(lane) * classes + k];
        for (int k = 0; k < classes; k++) logits[k] = load(&turned[k * LANES]);
        Vector top = logits[0];
        for (const auto &one : logits) top = one > top ? one : top;
        for (auto &one : logits) one -= top;
    }

    void share(float heat) {
        Vector sum{};
        for (int k = 0; k < classes; k++) sum += shares[k] = exponential(logits[k] * (1 / heat));
        Vector part = 1.f / sum;
        for (auto &one : shares) one *= part;
        log_sum = logarithm(sum);
    }
};

struct Rules {
    int64_t ignore;
    float smoothing, distil, heat;
};

// Of cross-entropy and divergence of the pixels at hand; `slopes` is their gradient, not yet divided by a count.
struct Lesson {
    const Rules rules;
    const int classes;
    Answers own, teacher;
    std::vector<Vector> slopes;

    Lesson(const Rules &rules, int classes)
        : rules(rules), classes(classes), own(classes), teacher(classes), slopes(classes) {}

    template <class Count>
    Vector losses(const float *logits, const float *taught, const int64_t *targets, Count pixels) {
        own.read(logits, pixels);
        own.share(1);
        Vector spread{}, at_label{};
        float share = taught ? 1 - rules.distil : 1, even = rules.smoothing / classes;
        for (int k = 0; k < classes; k++) {
            spread += own.logits[k];
            slopes[k] = share * (own.shares[k] - even);
        }
        for (int lane = 0; lane < pixels; lane++) {
            if (targets[lane] == rules.ignore) continue;
            at_label[lane] = own.logits[targets[lane]][lane];
            slopes[targets[lane]][lane] -= share * (1 - rules.smoothing);
        }
        Vector labelled = own.log_sum - (1 - rules.smoothing) * at_label - even * spread;
        return taught ? share * labelled + rules.distil * divergence(taught, pixels) : labelled;
    }

    template <class Count> Vector divergence(const float *taught, Count pixels) {
        float heat = rules.heat;
        teacher.read(taught, pixels);
        teacher.share(heat);
        if (heat != 1) own.share(heat);
        Vector apart = own.log_sum - teacher.log_sum;
        for (int k = 0; k < classes; k++) {
            apart += teacher.shares[k] * (teacher.logits[k] - own.logits[k]) * (1 / heat);
            slopes[k] += rules.distil * heat * (own.shares[k] - teacher.shares[k]);
        }
        return heat * heat * apart;
    }

    template <class Count> void write(float *to, const int64_t *targets, Count pixels, float times) const {
        Vector counted{};
        for (int lane = 0; lane < pixels; lane++) counted[lane] = targets[lane] == rules.ignore ? 0 : times;
        for (int k = 0; k < classes; k++) {
            Vector slope = counted == 0.f ? counted : counted * slopes[k];
            for (int lane = 0; lane < pixels; lane++) to[int64_t(lane) * classes + k] = slope[lane];
        }
    }
};

}  // namespace

// The mean loss over counted pixels, 0 where there are none, and its gradient. Gives -1 where a target is none of the
// classes, else 0.
extern "C" int convfabric_pixel_loss(
    const float *logits, const float *taught, const int64_t *targets, int64_t pixels, int classes, int64_t ignore,
    float smoothing, float distil, float heat, int threads, float *loss, float *gradient) {
    int64_t counted = 0;
    for (int64_t p = 0; p < pixels; p++) {
        if (targets[p] == ignore) continue;
        if (targets[p] < 0 || targets[p] >= classes) return -1;
        counted++;
    }
    const double most = double(std::max<int64_t>(1, counted));
    std::vector<double> sums(threads, 0.0);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int t = 0; t < threads; t++) {
        Lesson lesson({ignore, smoothing, distil, heat}, classes);
        int64_t end = pixels * (t + 1) / threads;
        for (int64_t p = pixels * t / threads; p < end; p += LANES)
            with_count(int(std::min<int64_t>(LANES, end - p)), [&](auto some) {
                const float *teachers = taught ? taught + p * classes : nullptr;
                Vector losses = lesson.losses(logits + p * classes, teachers, targets + p, some);
                for (int lane = 0; lane < some; lane++)
                    if (targets[p + lane] != ignore) sums[t] += losses[lane];
                lesson.write(gradient + p * classes, targets + p, some, float(1 / most));
            });
    }
    double sum = 0;
    for (double one : sums) sum += one;
    *loss = float(sum / most);
    return 0;
}
