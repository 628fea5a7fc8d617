// The scan of scan.py on the CPU. Compiled and called by scan_native.py, which mirrors `Scan`.
//
// A block of neurons goes through all time steps while what it needs of the step before is still in the first-level
// cache, so memory is read and written once. Each formula is a loop of its own over the block, which the compiler
// turns into vector instructions; blocks are shared out to threads. Membranes in hard mode take scan.py's operations in
// scan.py's order: the spikes are the same bit for bit. That needs -ffp-contract=off and rules out -ffast-math.

#include "native.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t BLOCK = 1024;
constexpr double PI = 3.14159265358979323846;

enum Reset { SUBTRACT, ZERO, NONE, SUBTRACT_LEAKY };
enum Function { ARCTAN, FAST_SIGMOID, SIGMOID };
enum Window { NO_WINDOW, BOX, TRI, ASY, ARC, RAMP };

}  // namespace

extern "C" {

// A value of all neurons (each = 0) or one value a neuron (each = 1).
struct Parameter {
    const void *values;
    int64_t each;
};

struct Scan {
    int64_t steps, neurons, threads;
    int32_t hard, reset, detach_reset, function, rest_at_zero, window;
    double slope, height;
    const double *widths;                 // one a step
    Parameter beta, threshold;
    Parameter rest, rest_slope;           // phi(-threshold) before, phi'(-threshold) after shift and scaling
    double scale, unit, fire;             // fixed.py: units for 1; 1/(64 scale); 64 times the integer threshold
    Parameter bias;                       // fixed.py: in the current, in integer units
};

}

namespace {

template <class real> using Values = real[BLOCK];

template <class real> void load(const Parameter &parameter, int64_t first, int64_t count, Values<real> &values) {
    const real *from = static_cast<const real *>(parameter.values);
    if (parameter.each)
        std::copy_n(from + first, count, values);
    else
        std::fill_n(values, count, *from);
}

// ------------------------------------------------------------------------------------------ elementary functions

inline double exponential(double x) { return std::exp(x); }
inline double arctan(double x) { return std::atan(x); }

// To 2 units in the last place, and without a branch, so that it can be vectorised. NaN stays NaN.
inline float exponential(float x) {
    // 89 gives infinity; below -87, 1 + exp(x) is 1
    x = x > 89.0f ? 89.0f : x;
    x = x < -87.0f ? -87.0f : x;
    // 1.5*2^23: adding it rounds to the nearest integer, which is then in the low bits
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    // ln 2 in two parts, the first short enough that n times it is exact
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    // Taylor: |r| <= ln(2)/2, the next term is 5e-9
    float sum = 1.0f / 5040;
    sum = sum * r + 1.0f / 720;
    sum = sum * r + 1.0f / 120;
    sum = sum * r + 1.0f / 24;
    sum = sum * r + 1.0f / 6;
    sum = sum * r + 0.5f;
    sum = sum * r * r + r + 1.0f;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = static_cast<int32_t>((static_cast<uint32_t>(bits) << 23) + 0x3f800000u);
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

inline float arctan(float x) {
    const float size = std::fabs(x);
    // atan(x) = pi/2 - atan(1/x) = pi/4 + atan((x - 1)/(x + 1)) bring the argument below tan(pi/8)
    const bool large = size > 2.41421356f, middle = size > 0.414213562f;
    const float above = large ? -1.0f : (middle ? size - 1.0f : size);
    const float below = large ? size : (middle ? size + 1.0f : 1.0f);
    const float base = large ? static_cast<float>(PI / 2) : (middle ? static_cast<float>(PI / 4) : 0.0f);
    const float r = above / below, r2 = r * r;
    // Taylor, the next term is 7e-9
    float sum = 1.0f / 17;
    sum = sum * r2 - 1.0f / 15;
    sum = sum * r2 + 1.0f / 13;
    sum = sum * r2 - 1.0f / 11;
    sum = sum * r2 + 1.0f / 9;
    sum = sum * r2 - 1.0f / 7;
    sum = sum * r2 + 1.0f / 5;
    sum = sum * r2 - 1.0f / 3;
    return std::copysign(base + (sum * r2 * r + r), x);
}

// -------------------------------------------------------------------------------- spike functions, as in spikes.py

template <class real> void phi(const Scan &scan, int64_t count, const real *u, const real *threshold, const real *rest,
                               real *__restrict s) {
    const real slope = static_cast<real>(scan.slope);
    switch (scan.function) {
    case ARCTAN: {
        const real scale = static_cast<real>(PI * scan.slope), pi = static_cast<real>(PI);
        for (int64_t i = 0; i < count; i++)
            s[i] = arctan((u[i] - threshold[i]) * scale) / pi + real(0.5);
        break;
    }
    case FAST_SIGMOID:
        for (int64_t i = 0; i < count; i++) {
            const real x = (u[i] - threshold[i]) * (2 * slope);
            s[i] = x / (std::fabs(x) + 1) * real(0.5) + real(0.5);
        }
        break;
    case SIGMOID:
        for (int64_t i = 0; i < count; i++)
            s[i] = 1 / (1 + exponential((u[i] - threshold[i]) * (-4 * slope)));
        break;
    }
    if (scan.rest_at_zero)
        for (int64_t i = 0; i < count; i++)
            s[i] = (s[i] - rest[i]) / (1 - rest[i]);
}

template <class real> void spike(const Scan &scan, int64_t count, const real *u, const real *threshold,
                                 const real *rest, real *__restrict s) {
    if (!scan.hard)
        return phi(scan, count, u, threshold, rest, s);
    for (int64_t i = 0; i < count; i++)
        s[i] = u[i] - threshold[i] > 0 ? real(1) : real(0);
}

template <class real> void phi_slope(const Scan &scan, int64_t count, const real *u, const real *threshold,
                                     const real *rest, real *__restrict d) {
    const real slope = static_cast<real>(scan.slope);
    switch (scan.function) {
    case ARCTAN: {
        const real scale = static_cast<real>(PI * scan.slope);
        for (int64_t i = 0; i < count; i++) {
            const real x = (u[i] - threshold[i]) * scale;
            d[i] = slope / (x * x + 1);
        }
        break;
    }
    case FAST_SIGMOID:
        for (int64_t i = 0; i < count; i++) {
            const real x = std::fabs((u[i] - threshold[i]) * (2 * slope)) + 1;
            d[i] = slope / (x * x);
        }
        break;
    case SIGMOID:
        for (int64_t i = 0; i < count; i++) {
            const real p = 1 / (1 + exponential((u[i] - threshold[i]) * (-4 * slope)));
            d[i] = p * (1 - p) * (4 * slope);
        }
        break;
    }
    if (scan.rest_at_zero)
        for (int64_t i = 0; i < count; i++)
            d[i] = d[i] / (1 - rest[i]);
}

// ------------------------------------------------------------------------------------------ windows, as in windows.py

template <class real> void window(const Scan &scan, int64_t t, int64_t count, const real *u, const real *threshold,
                                  real *__restrict d) {
    const double b = scan.widths[t];
    const real width = static_cast<real>(b), scale = static_cast<real>(1 / (2 * b));
    switch (scan.window) {
    case BOX:
        for (int64_t i = 0; i < count; i++)
            d[i] = std::fabs(u[i] - threshold[i]) < width ? scale : real(0);
        break;
    case TRI: {
        const real scale_tri = static_cast<real>(1 / (b * b));
        for (int64_t i = 0; i < count; i++) {
            const real inside = width - std::fabs(u[i] - threshold[i]);
            d[i] = (inside < 0 ? real(0) : inside) * scale_tri;
        }
        break;
    }
    case ASY: {
        const real shift = static_cast<real>(2 * b * scan.height);
        for (int64_t i = 0; i < count; i++) {
            const real z = u[i] - threshold[i];
            d[i] = (z + shift) * scale * (std::fabs(z) <= width ? real(1) : real(0));
        }
        break;
    }
    case RAMP: {
        const real scale_ramp = static_cast<real>(1 / (2 * b * b));
        for (int64_t i = 0; i < count; i++) {
            const real z = u[i] - threshold[i];
            d[i] = (z + width) * scale_ramp * (std::fabs(z) <= width ? real(1) : real(0));
        }
        break;
    }
    case ARC: {
        const real stretch = static_cast<real>(PI / (2 * b));
        for (int64_t i = 0; i < count; i++) {
            const real x = (u[i] - threshold[i]) * stretch;
            d[i] = scale / (x * x + 1);
        }
        break;
    }
    }
}

// -------------------------------------------------------------------------------------------------------- the scan

int64_t blocks_of(int64_t neurons) { return (neurons + BLOCK - 1) / BLOCK; }

// `body(first, count, block)` for every block of neurons.
template <class Body> void share_blocks(const Scan &scan, Body body) {
    share(scan.threads, blocks_of(scan.neurons), [&](int64_t block) {
        body(block * BLOCK, std::min(BLOCK, scan.neurons - block * BLOCK), block);
    });
}

template <class real> void forward(const Scan &scan, const real *current, real *spikes, real *membrane) {
    share_blocks(scan, [&](int64_t first, int64_t count, int64_t) {
        alignas(64) Values<real> beta, threshold, rest;
        load(scan.beta, first, count, beta);
        load(scan.threshold, first, count, threshold);
        if (scan.rest_at_zero)
            load(scan.rest, first, count, rest);
        for (int64_t t = 0; t < scan.steps; t++) {
            const int64_t at = t * scan.neurons + first;
            const real *__restrict input = current + at;
            real *__restrict u = membrane + at;
            const real *u_before = t ? u - scan.neurons : nullptr, *s_before = t ? spikes + at - scan.neurons : nullptr;
            if (t == 0)
                std::copy_n(input, count, u);
            else if (scan.reset == ZERO)
                for (int64_t i = 0; i < count; i++)
                    u[i] = (1 - s_before[i]) * u_before[i] * beta[i] + input[i];
            else if (scan.reset == SUBTRACT)
                for (int64_t i = 0; i < count; i++)
                    u[i] = u_before[i] * beta[i] + input[i] - s_before[i] * threshold[i];
            else if (scan.reset == SUBTRACT_LEAKY)
                for (int64_t i = 0; i < count; i++)
                    u[i] = (u_before[i] - s_before[i] * threshold[i]) * beta[i] + input[i];
            else
                for (int64_t i = 0; i < count; i++)
                    u[i] = u_before[i] * beta[i] + input[i];
            spike(scan, count, u, threshold, rest, spikes + at);
        }
    });
}

// The forward in a chip's integers, as in fixed.py: each value is an integer that `real` holds.
template <class real> void fixed(const Scan &scan, const real *current, real *spikes, real *membrane) {
    constexpr real SHIFT = 64, STATE = 1 << 23, UNIT = 4096, PART = real(1) / 4096;
    share_blocks(scan, [&](int64_t first, int64_t count, int64_t) {
        alignas(64) Values<real> keep, bias, v, fired;
        load(scan.beta, first, count, keep);
        load(scan.bias, first, count, bias);
        for (int64_t i = 0; i < count; i++)
            keep[i] *= UNIT;
        std::fill_n(v, count, real(0));
        std::fill_n(fired, count, real(0));
        const real fire = static_cast<real>(scan.fire), unit = static_cast<real>(scan.unit);
        const real taken = scan.reset == SUBTRACT ? fire : real(0), kept = scan.reset == ZERO ? real(0) : real(1);
        const real at_once = scan.reset == SUBTRACT_LEAKY ? fire : real(0);
        for (int64_t t = 0; t < scan.steps; t++) {
            const int64_t at = t * scan.neurons + first;
            const real *__restrict input = current + at;
            real *__restrict u = membrane + at, *__restrict s = spikes + at;
            for (int64_t i = 0; i < count; i++) {
                real x = (input[i] - bias[i]) * SHIFT;
                x -= x > STATE ? 2 * STATE : real(0);
                x += x <= -STATE ? 2 * STATE : real(0);
                x += bias[i] * SHIFT - taken * fired[i];
                const real high = std::trunc(v[i] * PART);
                x += high * keep[i] + std::trunc((v[i] - high * UNIT) * (keep[i] * PART));
                x = x > STATE - 1 ? STATE - 1 : x;
                x = x < 1 - STATE ? 1 - STATE : x;
                const real spike = x > fire ? real(1) : real(0);
                s[i] = fired[i] = spike;
                u[i] = x * unit;
                v[i] = spike > 0 ? (x - at_once) * kept : x;
            }
        }
    });
}

// Where gradients of beta and threshold go: one a neuron, or one a block where all neurons share the value. Sums are
// in double and in a fixed order.
void store(const Parameter &parameter, int64_t first, int64_t count, int64_t block, const double *sums, double *to) {
    if (parameter.each) {
        std::copy_n(sums, count, to + first);
        return;
    }
    to[block] = 0;
    for (int64_t i = 0; i < count; i++)
        to[block] += sums[i];
}

// d phi / d threshold at fixed u, times -1. Only the shifted phi has more than -phi' here, from its offset.
template <class real> void threshold_slope(const Scan &scan, int64_t count, const real *u, const real *threshold,
                                           const real *rest, const real *rest_slope, const real *d,
                                           real *__restrict slope) {
    if (!scan.rest_at_zero || scan.window) {
        std::copy_n(d, count, slope);
        return;
    }
    phi(scan, count, u, threshold, rest, slope);
    for (int64_t i = 0; i < count; i++)
        slope[i] = d[i] - (1 - slope[i]) * rest_slope[i];
}

// A gradient in the float current becomes one in the integer current.
template <class real> void scaled(const Scan &scan, int64_t count, real *__restrict a) {
    const real scale = static_cast<real>(scan.scale);
    for (int64_t i = 0; i < count; i++)
        a[i] /= scale;
}

// grad_membrane, grad_beta and grad_threshold may be null.
template <class real> void backward(const Scan &scan, const real *membrane, const real *grad,
                                    const real *grad_membrane, real *grad_current, double *grad_beta,
                                    double *grad_threshold) {
    share_blocks(scan, [&](int64_t first, int64_t count, int64_t block) {
        alignas(64) Values<real> beta, threshold, taken, rest, rest_slope, d, d_threshold, s;
        alignas(64) Values<double> sum_beta, sum_threshold;
        load(scan.beta, first, count, beta);
        load(scan.threshold, first, count, threshold);
        if (scan.rest_at_zero) {
            load(scan.rest, first, count, rest);
            load(scan.rest_slope, first, count, rest_slope);
        }
        if (grad_beta)
            std::fill_n(sum_beta, count, 0.0);
        if (grad_threshold)
            std::fill_n(sum_threshold, count, 0.0);
        const bool zero = scan.reset == ZERO, through_reset = !scan.detach_reset && scan.reset != NONE;
        const bool leaky = scan.reset == SUBTRACT_LEAKY, subtracts = leaky || scan.reset == SUBTRACT;
        for (int64_t i = 0; i < count; i++)  // off the next membrane, for a spike
            taken[i] = leaky ? beta[i] * threshold[i] : threshold[i];
        for (int64_t t = scan.steps - 1; t >= 0; t--) {
            const int64_t at = t * scan.neurons + first;
            const real *u = membrane + at, *g = grad + at;
            real *__restrict a = grad_current + at;
            const real *later = t < scan.steps - 1 ? a + scan.neurons : nullptr;
            if (scan.window)
                window(scan, t, count, u, threshold, d);
            else
                phi_slope(scan, count, u, threshold, rest, d);
            if (zero || grad_beta || grad_threshold)
                spike(scan, count, u, threshold, rest, s);

            if (!later)
                for (int64_t i = 0; i < count; i++)
                    a[i] = g[i] * d[i];
            else if (zero && through_reset)
                for (int64_t i = 0; i < count; i++)
                    a[i] = g[i] * d[i] + (1 - s[i] - u[i] * d[i]) * beta[i] * later[i];
            else if (zero)
                for (int64_t i = 0; i < count; i++)
                    a[i] = g[i] * d[i] + (1 - s[i]) * beta[i] * later[i];
            else if (through_reset)
                for (int64_t i = 0; i < count; i++)
                    a[i] = g[i] * d[i] + (beta[i] - taken[i] * d[i]) * later[i];
            else
                for (int64_t i = 0; i < count; i++)
                    a[i] = g[i] * d[i] + beta[i] * later[i];
            if (grad_membrane)
                for (int64_t i = 0; i < count; i++)
                    a[i] += grad_membrane[at + i];

            if (grad_beta && later)
                for (int64_t i = 0; i < count; i++)
                    sum_beta[i] += later[i] * (zero ? u[i] * (1 - s[i]) : leaky ? u[i] - threshold[i] * s[i] : u[i]);
            if (grad_threshold) {
                threshold_slope(scan, count, u, threshold, rest, rest_slope, d, d_threshold);
                for (int64_t i = 0; i < count; i++) {
                    // dL/ds: the direct part and what flows back through the reset of the next step
                    real total = g[i];
                    if (later && through_reset)
                        total -= (zero ? beta[i] * u[i] : taken[i]) * later[i];
                    sum_threshold[i] -= total * d_threshold[i];
                    if (later && subtracts)
                        sum_threshold[i] -= later[i] * s[i] * (leaky ? beta[i] : real(1));
                }
            }
            // not before: the step below takes it as it is
            if (later && scan.scale != 1)
                scaled(scan, count, a + scan.neurons);
        }
        if (scan.steps && scan.scale != 1)
            scaled(scan, count, grad_current + first);
        if (grad_beta)
            store(scan.beta, first, count, block, sum_beta, grad_beta);
        if (grad_threshold)
            store(scan.threshold, first, count, block, sum_threshold, grad_threshold);
    });
}

}  // namespace

extern "C" {

int64_t lif_blocks(int64_t neurons) { return blocks_of(neurons); }

int lif_forward_float(const Scan *scan, const float *current, float *spikes, float *membrane) {
    return guarded([&] { forward(*scan, current, spikes, membrane); });
}

int lif_forward_double(const Scan *scan, const double *current, double *spikes, double *membrane) {
    return guarded([&] { forward(*scan, current, spikes, membrane); });
}

int lif_fixed_float(const Scan *scan, const float *current, float *spikes, float *membrane) {
    return guarded([&] { fixed(*scan, current, spikes, membrane); });
}

int lif_fixed_double(const Scan *scan, const double *current, double *spikes, double *membrane) {
    return guarded([&] { fixed(*scan, current, spikes, membrane); });
}

int lif_backward_float(const Scan *scan, const float *membrane, const float *grad, const float *grad_membrane,
                        float *grad_current, double *grad_beta, double *grad_threshold) {
    return guarded([&] { backward(*scan, membrane, grad, grad_membrane, grad_current, grad_beta, grad_threshold); });
}

int lif_backward_double(const Scan *scan, const double *membrane, const double *grad, const double *grad_membrane,
                         double *grad_current, double *grad_beta, double *grad_threshold) {
    return guarded([&] { backward(*scan, membrane, grad, grad_membrane, grad_current, grad_beta, grad_threshold); });
}
}
