// The one way to Catch2: tests read the same under version 2 (Debian 12) and version 3.
// Used of it: TEST_CASE, SECTION, DYNAMIC_SECTION, GENERATE, CHECK, REQUIRE, CAPTURE, INFO, BENCHMARK.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/benchmark/catch_benchmark.hpp>
#include <catch2/catch_session.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_adapters.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
