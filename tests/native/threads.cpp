// The contract of csrc/threads.h, exercised without Python. Exits with 0 where it holds, else says
// what does not. With the argument "rate" prints microseconds per dispatch of a run.
#include "threads.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "processors.h"
#include "require.h"

using namespace twolayer;

namespace {

// Each part once, whatever their number.
void each_part_runs_once(Index parts) {
  std::vector<std::atomic<int>> runs(parts);
  on_threads(parts, [&](Index part) { runs[part].fetch_add(1); });
  for (const auto& count : runs) require(count.load() == 1, "each part runs once");
}

void all_counts_of_parts() {
  for (Index parts : {0, 1, 2, 3, 7, 63, 64, 65, 255, 256, 257, 1000}) each_part_runs_once(parts);
}

// Many short pieces of work, each of which reads what the one before it wrote.
void pieces_see_those_before_them(Index threads, int rounds) {
  std::vector<Index> values(threads, 0), next(threads, 0);
  for (int round = 0; round < rounds; ++round) {
    on_threads(threads, [&](Index part) { next[part] = values[(part + 1) % threads] + 1; });
    on_threads(threads, [&](Index part) { values[part] = next[part]; });
  }
  for (Index value : values) require(value == rounds, "a piece sees all of the one before it");
}

void an_exception_comes_out() {
  int finished = 0;
  try {
    on_threads(4, [&](Index part) {
      if (part == 2) throw std::runtime_error("part 2");
    });
    require(false, "an exception comes out");
  } catch (const std::runtime_error& error) {
    require(std::string(error.what()) == "part 2", "the exception is the part's");
    ++finished;
  }
  each_part_runs_once(4);
}

void inside_a_part_the_parts_follow_each_other() {
  std::atomic<int> total{0};
  on_threads(3, [&](Index) {
    const auto self = std::this_thread::get_id();
    on_threads(5, [&](Index) {
      require(std::this_thread::get_id() == self, "no further threads inside a part");
      total.fetch_add(1);
    });
  });
  require(total.load() == 15, "nested parts all run");
}

void everything() {
  all_counts_of_parts();
  pieces_see_those_before_them(2, 3000);
  pieces_see_those_before_them(5, 300);
  an_exception_comes_out();
  inside_a_part_the_parts_follow_each_other();
}

void everything_in_all_ways() {
  for (Neighbour neighbour : {Neighbour::torch, Neighbour::none}) {
    const CalledBeside beside(neighbour);
    everything();
    in_one_region(2, [] { everything(); });
    in_one_region(7, [] { everything(); });
    for (int threads : {1, 2, 4}) {
      const auto region = Region::many_pieces;
      const auto inner = [] { everything(); };
      in_one_region(threads, [&] { in_one_region(threads, inner, region); }, region);
    }
  }
}

template <class Fn>
void at_once(int count, Fn fn) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(fn);
  for (auto& thread : threads) thread.join();
}

// The child of a fork, in the middle of other threads' work, has threads that work.
void a_child_of_a_busy_parent_works() {
  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (int i = 0; i < 3; ++i) {
    busy.emplace_back([&, i] {
      const CalledBeside beside(i == 0 ? Neighbour::torch : Neighbour::none);
      while (!stop) pieces_see_those_before_them(3, 50);
    });
  }
  for (int i = 0; i < 20; ++i) {
    const auto fork_here = [] {
      const pid_t child = fork();
      if (child == 0) {
        alarm(20);
        everything();
        std::_Exit(0);
      }
      int status = -1;
      waitpid(child, &status, 0);
      require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child of a fork works");
    };
    // Inside a region too.
    in_one_region(i % 2 == 0 ? 1 : 3, fork_here, i % 3 == 0 ? Region::many_pieces : Region::brief);
  }
  stop = true;
  for (auto& thread : busy) thread.join();
}

double microseconds_per_dispatch(int threads) {
  constexpr int ROUNDS = 200000;
  double best = 1e9;
  const auto measure = [&] {
    for (int repeat = 0; repeat < 7; ++repeat) {
      const Index start = now();
      for (int i = 0; i < ROUNDS; ++i) on_threads(threads, [](Index) {});
      best = std::min(best, double(now() - start) / ROUNDS / 1000);
    }
  };
  in_one_region(threads, measure, Region::many_pieces);
  return best;
}

// Share of parts that run on the thread that ran the same part before, in parts of some length.
double share_that_stays(int threads) {
  constexpr int ROUNDS = 20000;
  std::vector<std::thread::id> last(threads);
  std::atomic<int> stayed{0};
  const auto run = [&] {
    for (int round = 0; round < ROUNDS; ++round) {
      on_threads(threads, [&](Index part) {
        const Index end = now() + 2000;
        while (now() < end) {
        }
        if (last[part] == std::this_thread::get_id()) stayed.fetch_add(1);
        last[part] = std::this_thread::get_id();
      });
    }
  };
  in_one_region(threads, run, Region::many_pieces);
  return double(stayed) / ROUNDS / threads;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && std::string(arguments[1]) == "rate") {
    std::printf("%.3f us per dispatch on 1 thread, %.3f on 2; %.3f of the parts stay\n",
                microseconds_per_dispatch(1), microseconds_per_dispatch(2), share_that_stays(2));
    return 0;
  }
  alarm(100);
  everything_in_all_ways();
  at_once(4, everything_in_all_ways);
  at_once(40, everything);  // more callers than the pool has boards
  a_child_of_a_busy_parent_works();
  return 0;
}
