#pragma once
// The training of the example, which knows nothing of checkpoints: an MLP of one hidden layer with
// Adam, on the UCI digits, single-threaded.

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace digits {

struct Samples {
  std::vector<float> pixels;  // 64 for each sample, from 0 to 1.
  std::vector<std::size_t> labels;
};

// A row-major matrix (or vector) with its gradient and Adam's two moments.
struct Parameter {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::vector<float> value, gradient, mean, variance;
};

struct Training {
  std::uint64_t step = 0;
  std::array<Parameter, 4> parameters;  // w1, b1, w2, b2.
  std::mt19937_64 generator{20240229};
  std::vector<std::int32_t> order;  // The training samples as this epoch visits them.
  std::int64_t position = 0;        // In `order`, of the next batch.
  std::vector<float> losses;        // One for each step done.
};

// `path` holds rows of 64 grey values from 0 to 16 and the digit, separated by commas. Empty: it
// does not.
Samples load_samples(const std::string& path);

// Before the first step. The last rows of the file are not trained on but kept for the test.
Training new_training(const Samples& samples, std::size_t hidden_size);

// One batch: forward, backward, Adam's update. Everything it depends on is in its arguments.
void train_step(Training& training, const Samples& samples);

// The part of the digits kept for the test that the network gets right.
double test_accuracy(const Training& training, const Samples& samples);

}  // namespace digits
