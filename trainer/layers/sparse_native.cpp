// Convolutions and dense layers on inputs that are mostly zeros. Compiled and called by sparse.py, which mirrors the
// structures and makes the tables.
//
// A batch becomes lists of what is not zero, the events. A layer, and the gradient of its weights, then take a few
// vector operations over the output channels for each event. Within a sample everything is in memory order; output
// channels are filled up with zeros to a whole number of vectors, the lanes.

#include "native.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

extern "C" {

struct Events {
    int64_t samples, inputs, threads;      // inputs: elements of a sample
    int64_t *first, *last;                 // events first[n] .. last[n] are of sample n, in order
    int32_t *index;                        // which element
    void *value;
};

// All events take the same number of taps, with weights of zero beyond the kernel and a margin around the output, so
// that no branch has to be guessed. The taps of one event are a block of the packed weights: `rows` kernel rows of
// `length` each, for output pixels one after the other.
struct Convolution {
    int64_t height, width, channels, lanes;        // of the output
    int64_t rows, length;                          // of a block; length: kernel columns * lanes
    int64_t weights;                               // packed weights in all
    int64_t grid, row_step, origin;                // output with its margin: size, from row to row, where it begins
    const int32_t *place, *block;                  // of each input element: its first output in the grid, its weights
};

}

namespace {

constexpr int64_t VECTOR = 16;
constexpr int64_t FEATURES = 64, SAMPLES = 64;  // of a dense layer: what is taken at a time stays in the nearest caches

template <class real> std::unique_ptr<real[]> room(int64_t count) { return std::unique_ptr<real[]>(new real[count]); }

// y += a*x; count is a whole number of vectors.
template <class real> inline void add(int64_t count, real a, const real *__restrict x, real *__restrict y) {
    for (int64_t j = 0; j < count; j += VECTOR)
        for (int64_t i = 0; i < VECTOR; i++)
            y[j + i] += a * x[j + i];
}

// ---------------------------------------------------------------------------------------------------------- events

// Lists the events of x; returns how many there are, or more than `most` where there are more than that.
template <class real> void list(const Events &events, const real *x, int64_t most, int64_t *total) {
    std::atomic<int64_t> used{0};
    share(events.threads, events.samples, [&](int64_t n) {
        if (used > most)
            return;
        const real *sample = x + n * events.inputs;
        const auto index = room<int32_t>(events.inputs);
        int64_t count = 0, begin = 0;
        for (; begin + 64 <= events.inputs; begin += 64) {
            uint64_t mask = 0;
            for (int64_t i = 0; i < 64; i++)
                mask |= static_cast<uint64_t>(sample[begin + i] != 0) << i;
            for (; mask; mask &= mask - 1)
                index[count++] = static_cast<int32_t>(begin + __builtin_ctzll(mask));
        }
        for (; begin < events.inputs; begin++)
            if (sample[begin] != 0)
                index[count++] = static_cast<int32_t>(begin);
        // samples lie in whatever order threads come by; within each, order is that of memory
        const int64_t at = used.fetch_add(count);
        if (at + count > most)
            return;
        events.first[n] = at;
        events.last[n] = at + count;
        std::copy_n(index.get(), count, events.index + at);
        real *value = static_cast<real *>(events.value) + at;
        for (int64_t i = 0; i < count; i++)
            value[i] = sample[index[i]];
    });
    *total = used;
}

// ----------------------------------------------------------------------------------------------------- convolution

// `step(value, weights, output)` for each event of sample n and each row of its taps.
template <class real, class Step> void visit(const Convolution &c, const Events &events, int64_t n, Step step) {
    const real *value = static_cast<const real *>(events.value);
    for (int64_t e = events.first[n]; e < events.last[n]; e++) {
        const int64_t place = c.place[events.index[e]], block = c.block[events.index[e]];
        for (int64_t row = 0; row < c.rows; row++)
            step(value[e], block + row * c.length, place + row * c.row_step);
    }
}

// `count` pixels of `channels` to pixels of `lanes` or back. Whole vectors are faster than exact copies: what comes
// along from or goes over to the next pixel is either in lanes that no sum uses, or overwritten by the next pixel.
template <class real> inline void copy(const Convolution &c, int64_t count, const real *from, int64_t from_step,
                                       real *__restrict to, int64_t to_step) {
    // pixels for which a whole number of vectors stays inside of the narrow array
    const int64_t inner = std::max<int64_t>(0, count - (c.lanes + c.channels - 1) / c.channels + 1);
    for (int64_t p = 0; p < inner; p++)
        for (int64_t j = 0; j < c.lanes; j += VECTOR)
            for (int64_t i = 0; i < VECTOR; i++)
                to[p * to_step + j + i] = from[p * from_step + j + i];
    for (int64_t p = inner; p < count; p++)
        std::copy_n(from + p * from_step, c.channels, to + p * to_step);
}

// bias: lanes. out: (samples, height, width, channels).
template <class real> void forward(const Convolution &c, const Events &events, const real *weight, const real *bias,
                                   real *out) {
    share(events.threads, events.samples, [&](int64_t n) {
        const auto grid = room<real>(c.grid);
        for (int64_t i = 0; i < c.grid; i += c.lanes)
            std::copy_n(bias, c.lanes, grid.get() + i);
        visit<real>(c, events, n, [&](real value, int64_t weights, int64_t output) {
            add(c.length, value, weight + weights, grid.get() + output);
        });
        real *sample = out + n * c.height * c.width * c.channels;
        for (int64_t y = 0; y < c.height; y++)
            copy(c, c.width, grid.get() + c.origin + y * c.row_step, c.lanes, sample + y * c.width * c.channels,
                 c.channels);
    });
}

// Gradients of the weights, packed, and behind them of the bias, (lanes): one a part of the samples, summed into the
// first. The sum does not depend on the number of threads. grad: (samples, height, width, channels).
template <class real> void gradient(const Convolution &c, const Events &events, const real *grad, int64_t parts,
                                    real *sums) {
    const int64_t size = c.weights + c.lanes;
    share(events.threads, parts, [&](int64_t part) {
        real *mine = sums + part * size;
        std::fill_n(mine, size, real(0));
        const auto grid = room<real>(c.grid + c.lanes);
        std::fill_n(grid.get(), c.grid, real(0));
        real *sum = grid.get() + c.grid;
        for (int64_t n = part * events.samples / parts; n < (part + 1) * events.samples / parts; n++) {
            std::fill_n(sum, c.lanes, real(0));  // of one sample: small sums first keep the rounding small
            for (int64_t y = 0; y < c.height; y++) {
                real *row = grid.get() + c.origin + y * c.row_step;
                copy(c, c.width, grad + (n * c.height + y) * c.width * c.channels, c.channels, row, c.lanes);
                for (int64_t x = 0; x < c.width; x++)
                    add(c.lanes, real(1), row + x * c.lanes, sum);
            }
            add(c.lanes, real(1), sum, mine + c.weights);
            visit<real>(c, events, n, [&](real value, int64_t weights, int64_t output) {
                add(c.length, value, grid.get() + output, mine + weights);
            });
        }
    });
    share(events.threads, (size + 4095) / 4096, [&](int64_t block) {
        for (int64_t part = 1; part < parts; part++)
            for (int64_t i = block * 4096; i < std::min(size, (block + 1) * 4096); i++)
                sums[i] += sums[part * size + i];
    });
}

// ----------------------------------------------------------------------------------------------------- dense layer

// `step(event, sample)` for the events of samples first_sample .. last_sample, FEATURES inputs at a time.
template <class Step> void visit_dense(const Events &events, int64_t first_sample, int64_t last_sample, Step step) {
    const auto at = room<int64_t>(last_sample - first_sample);
    std::copy(events.first + first_sample, events.first + last_sample, at.get());
    for (int64_t end = FEATURES; end < events.inputs + FEATURES; end += FEATURES)
        for (int64_t n = first_sample; n < last_sample; n++)
            for (int64_t &e = at[n - first_sample]; e < events.last[n] && events.index[e] < end; e++)
                step(e, n);
}

// weight: (inputs, lanes). out: (samples, lanes), which holds the bias.
template <class real> void dense_forward(int64_t lanes, const Events &events, const real *weight, real *out) {
    const real *value = static_cast<const real *>(events.value);
    share(events.threads, (events.samples + SAMPLES - 1) / SAMPLES, [&](int64_t block) {
        visit_dense(events, block * SAMPLES, std::min((block + 1) * SAMPLES, events.samples), [&](int64_t e, int64_t n) {
            add(lanes, value[e], weight + events.index[e] * lanes, out + n * lanes);
        });
    });
}

// grad: (samples, lanes). sums: (inputs, lanes). A work item takes some inputs of all samples.
template <class real> void dense_gradient(int64_t lanes, const Events &events, const real *grad, real *sums) {
    const real *value = static_cast<const real *>(events.value);
    share(events.threads, (events.inputs + FEATURES - 1) / FEATURES, [&](int64_t block) {
        const int64_t begin = block * FEATURES, end = std::min(begin + FEATURES, events.inputs);
        std::fill_n(sums + begin * lanes, (end - begin) * lanes, real(0));
        for (int64_t n = 0; n < events.samples; n++) {
            const int32_t *at = events.index + events.first[n], *last = events.index + events.last[n];
            at = std::lower_bound(at, last, static_cast<int32_t>(begin));
            for (; at < last && *at < end; at++)
                add(lanes, value[at - events.index], grad + n * lanes, sums + *at * lanes);
        }
    });
}

}  // namespace

#define FOR_TYPE(real)                                                                                                 \
    int sparse_list_##real(const Events *events, const real *x, int64_t most, int64_t *total) {                        \
        return guarded([&] { list(*events, x, most, total); });                                                        \
    }                                                                                                                  \
    int sparse_forward_##real(const Events *events, const Convolution *c, const real *weight, const real *bias,        \
                               real *out) {                                                                            \
        return guarded([&] { forward(*c, *events, weight, bias, out); });                                              \
    }                                                                                                                  \
    int sparse_gradient_##real(const Events *events, const Convolution *c, const real *grad, int64_t parts,            \
                                real *sums) {                                                                          \
        return guarded([&] { gradient(*c, *events, grad, parts, sums); });                                             \
    }                                                                                                                  \
    int sparse_dense_forward_##real(const Events *events, int64_t lanes, const real *weight, real *out) {              \
        return guarded([&] { dense_forward(lanes, *events, weight, out); });                                           \
    }                                                                                                                  \
    int sparse_dense_gradient_##real(const Events *events, int64_t lanes, const real *grad, real *sums) {              \
        return guarded([&] { dense_gradient(lanes, *events, grad, sums); });                                           \
    }

extern "C" {
FOR_TYPE(float)
FOR_TYPE(double)
}
