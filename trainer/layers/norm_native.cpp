// BatchNorm over rows of channels (channels innermost), for norm.py, which compiles and calls it and mirrors `Rows`.
//
// Formulas are loops over a tile: as many rows as make a whole number of vectors, so that 12 channels run as fast as 16.
// Sums are taken over chunks that stay in cache and added up in double, in a fixed order whatever the number of threads.

#include "native.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

extern "C" {

struct Rows {
    int64_t rows, channels, threads;
};

}

namespace {

constexpr int64_t VECTOR = 16;
constexpr int64_t CHUNK = 1 << 13;     // elements, about
constexpr int64_t PARTS = 64;

struct Cut {
    int64_t tile_rows, tile, chunk_rows, chunks;

    explicit Cut(const Rows &r) {
        tile_rows = VECTOR / std::gcd(r.channels, VECTOR);
        tile = tile_rows * r.channels;
        chunk_rows = std::max<int64_t>(1, CHUNK / tile) * tile_rows;
        chunks = (r.rows + chunk_rows - 1) / chunk_rows;
    }
};

// A value a channel, repeated over a tile.
template <class real> std::vector<real> tiled(const Cut &cut, int64_t channels, const double *values) {
    std::vector<real> found(cut.tile);
    for (int64_t j = 0; j < cut.tile; j++)
        found[j] = static_cast<real>(values[j % channels]);
    return found;
}

// `element(at, place)` for elements `at` of rows first .. last, `place` within the tile; whole tiles as far as they go.
template <class Element> inline void each(const Cut &cut, int64_t channels, int64_t first, int64_t last,
                                          Element element) {
    int64_t r = first;
    for (; r + cut.tile_rows <= last; r += cut.tile_rows)
        for (int64_t j = 0; j < cut.tile; j++)
            element(r * channels + j, j);
    for (int64_t j = 0; j < (last - r) * channels; j++)
        element(r * channels + j, j);
}

template <class real> void fold(const Cut &cut, int64_t channels, const real *tile, double *sums) {
    std::fill_n(sums, channels, 0.0);
    for (int64_t j = 0; j < cut.tile; j++)
        sums[j % channels] += tile[j];
}

// `work(first row, last row, chunk's own sums)` for every chunk; then their sum, `count` values.
template <class Work> void over_chunks(const Rows &r, const Cut &cut, int64_t count, double *sums, Work work) {
    std::vector<double> all(cut.chunks * count);
    share(r.threads, std::min(PARTS, cut.chunks), [&](int64_t part) {
        for (int64_t chunk = part; chunk < cut.chunks; chunk += std::min(PARTS, cut.chunks))
            work(chunk * cut.chunk_rows, std::min((chunk + 1) * cut.chunk_rows, r.rows), all.data() + chunk * count);
    });
    std::fill_n(sums, count, 0.0);
    for (int64_t chunk = 0; chunk < cut.chunks; chunk++)
        for (int64_t c = 0; c < count; c++)
            sums[c] += all[chunk * count + c];
}

// mean and variance (divided by rows), (channels) each.
template <class real> void moments(const Rows &r, const real *x, double *mean, double *variance) {
    const Cut cut(r);
    const int64_t channels = r.channels;
    std::vector<double> sums(3 * channels);
    // Of a chunk: sum, sum of squares about its own mean, and square of the sum over the rows. Deviations from a mean
    // that is near do not cancel.
    over_chunks(r, cut, 3 * channels, sums.data(), [&](int64_t first, int64_t last, double *mine) {
        std::vector<real> tile(cut.tile), centre(cut.tile);
        real *__restrict sum = tile.data();
        each(cut, channels, first, last, [&](int64_t at, int64_t j) { sum[j] += x[at]; });
        fold(cut, channels, sum, mine);
        for (int64_t j = 0; j < cut.tile; j++)
            centre[j] = static_cast<real>(mine[j % channels] / (last - first));
        std::fill(tile.begin(), tile.end(), real(0));
        const real *__restrict about = centre.data();
        each(cut, channels, first, last, [&](int64_t at, int64_t j) {
            const real away = x[at] - about[j];
            sum[j] += away * away;
        });
        fold(cut, channels, sum, mine + channels);
        for (int64_t c = 0; c < channels; c++)
            mine[2 * channels + c] = mine[c] * mine[c] / (last - first);
    });
    for (int64_t c = 0; c < channels; c++) {
        mean[c] = sums[c] / r.rows;
        const double found = (sums[channels + c] + sums[2 * channels + c] - mean[c] * sums[c]) / r.rows;
        variance[c] = found < 0 ? 0 : found;  // NaN stays NaN
    }
}

// y = x*scale + shift
template <class real> void normalise(const Rows &r, const real *x, const double *scale, const double *shift, real *y) {
    const Cut cut(r);
    const auto scales = tiled<real>(cut, r.channels, scale), shifts = tiled<real>(cut, r.channels, shift);
    share(r.threads, cut.chunks, [&](int64_t chunk) {
        const real *__restrict a = scales.data(), *__restrict b = shifts.data(), *__restrict from = x;
        real *__restrict to = y;
        each(cut, r.channels, chunk * cut.chunk_rows, std::min((chunk + 1) * cut.chunk_rows, r.rows),
             [&](int64_t at, int64_t j) { to[at] = from[at] * a[j] + b[j]; });
    });
}

// sums: of g, and of g*(x - mean), (channels) each.
template <class real> void gradient_sums(const Rows &r, const real *x, const real *g, const double *mean,
                                         double *sums) {
    const Cut cut(r);
    const auto means = tiled<real>(cut, r.channels, mean);
    over_chunks(r, cut, 2 * r.channels, sums, [&](int64_t first, int64_t last, double *mine) {
        std::vector<real> plain(cut.tile), weighted(cut.tile);
        real *__restrict one = plain.data(), *__restrict two = weighted.data();
        const real *__restrict m = means.data();
        each(cut, r.channels, first, last, [&](int64_t at, int64_t j) {
            one[j] += g[at];
            two[j] += g[at] * (x[at] - m[j]);
        });
        fold(cut, r.channels, one, mine);
        fold(cut, r.channels, two, mine + r.channels);
    });
}

// grad = g*a + (x - mean)*b + c
template <class real> void gradient(const Rows &r, const real *x, const real *g, const double *mean, const double *a,
                                    const double *b, const double *c, real *grad) {
    const Cut cut(r);
    const auto means = tiled<real>(cut, r.channels, mean), as = tiled<real>(cut, r.channels, a),
               bs = tiled<real>(cut, r.channels, b), cs = tiled<real>(cut, r.channels, c);
    share(r.threads, cut.chunks, [&](int64_t chunk) {
        const real *__restrict m = means.data(), *__restrict p = as.data(), *__restrict q = bs.data(),
                   *__restrict s = cs.data();
        real *__restrict to = grad;
        each(cut, r.channels, chunk * cut.chunk_rows, std::min((chunk + 1) * cut.chunk_rows, r.rows),
             [&](int64_t at, int64_t j) { to[at] = g[at] * p[j] + (x[at] - m[j]) * q[j] + s[j]; });
    });
}

}  // namespace

#define FOR_TYPE(real)                                                                                                 \
    int norm_moments_##real(const Rows *r, const real *x, double *mean, double *variance) {                            \
        return guarded([&] { moments(*r, x, mean, variance); });                                                       \
    }                                                                                                                  \
    int norm_normalise_##real(const Rows *r, const real *x, const double *scale, const double *shift, real *y) {       \
        return guarded([&] { normalise(*r, x, scale, shift, y); });                                                    \
    }                                                                                                                  \
    int norm_gradient_sums_##real(const Rows *r, const real *x, const real *g, const double *mean, double *sums) {     \
        return guarded([&] { gradient_sums(*r, x, g, mean, sums); });                                                  \
    }                                                                                                                  \
    int norm_gradient_##real(const Rows *r, const real *x, const real *g, const double *mean, const double *a,         \
                              const double *b, const double *c, real *grad) {                                          \
        return guarded([&] { gradient(*r, x, g, mean, a, b, c, grad); });                                              \
    }

extern "C" {
FOR_TYPE(float)
FOR_TYPE(double)
}
