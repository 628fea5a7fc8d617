// What the libraries of native.py have in common: sharing work out to threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

// GOMP_parallel of torch's own OpenMP library: `work(data)` in each of `threads` threads. May be null.
using Pool = void (*)(void (*work)(void *), void *data, unsigned threads, unsigned flags);

namespace {

Pool pool = nullptr;

// `body(item)` for every item; its results must not depend on who takes which. Throws what any of them threw.
template <class Body> void share(int64_t threads, int64_t items, Body body) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    auto work = [&] {
        try {
            for (int64_t item; (item = next.fetch_add(1)) < items;)
                body(item);
        } catch (const std::bad_alloc &) {
            failed = true;
        }
    };
    threads = std::min(threads, items);
    std::vector<std::thread> others;
    if (pool && threads > 1)
        pool([](void *data) { (*static_cast<decltype(work) *>(data))(); }, &work, static_cast<unsigned>(threads), 0);
    else {
        try {
            for (int64_t i = 1; i < threads; i++)
                others.emplace_back(work);
        } catch (const std::system_error &) {
            // no more threads to be had: those there are do everything
        }
        work();
        for (auto &other : others)
            other.join();
    }
    if (failed)
        throw std::bad_alloc();
}

// 0, or 1 where memory did not suffice: no exception may leave a library.
template <class Body> int guarded(Body body) {
    try {
        body();
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

}  // namespace

extern "C" void use_pool(Pool given) { pool = given; }
