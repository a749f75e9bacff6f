// Plain loops over plain vectors, always in the same order, so that the same bits come out every
// time.

#include "network.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <sstream>

namespace digits {
namespace {

constexpr std::size_t kPixels = 64;
constexpr std::size_t kClasses = 10;
constexpr std::size_t kBatch = 32;
constexpr std::size_t kTestSamples = 297;  // The last ones of the file.

// Fills `hidden` with the hidden layer's activations and returns the ten logits.
std::array<float, kClasses> forward(const Training& training, const float* pixels,
                                    std::vector<float>& hidden) {
  const auto& [w1, b1, w2, b2] = training.parameters;
  hidden = b1.value;
  for (std::size_t p = 0; p < kPixels; ++p) {
    const float* row = &w1.value[p * hidden.size()];
    for (std::size_t h = 0; h < hidden.size(); ++h) hidden[h] += pixels[p] * row[h];
  }
  std::array<float, kClasses> logits{};
  std::copy(b2.value.begin(), b2.value.end(), logits.begin());
  for (std::size_t h = 0; h < hidden.size(); ++h) {
    hidden[h] = std::max(hidden[h], 0.0F);
    for (std::size_t c = 0; c < kClasses; ++c) logits[c] += hidden[h] * w2.value[h * kClasses + c];
  }
  return logits;
}

// Adds one sample's share to the gradients and returns its cross-entropy.
float accumulate_gradient(Training& training, const float* pixels, std::size_t label) {
  auto& [w1, b1, w2, b2] = training.parameters;
  static thread_local std::vector<float> hidden;
  std::array<float, kClasses> delta = forward(training, pixels, hidden);
  const float largest = *std::max_element(delta.begin(), delta.end());
  float sum = 0;
  for (float& value : delta) sum += value = std::exp(value - largest);
  for (float& value : delta) value /= sum;
  const float loss = -std::log(std::max(delta[label], 1e-30F));
  delta[label] -= 1;
  for (std::size_t c = 0; c < kClasses; ++c) b2.gradient[c] += delta[c];
  for (std::size_t h = 0; h < hidden.size(); ++h) {
    float hidden_delta = 0;
    for (std::size_t c = 0; c < kClasses; ++c) {
      hidden_delta += delta[c] * w2.value[h * kClasses + c];
      w2.gradient[h * kClasses + c] += hidden[h] * delta[c];
    }
    hidden[h] =
        hidden[h] > 0 ? hidden_delta : 0;  // The activation has been used for the last time.
    b1.gradient[h] += hidden[h];
  }
  for (std::size_t p = 0; p < kPixels; ++p) {
    float* row = &w1.gradient[p * hidden.size()];
    for (std::size_t h = 0; h < hidden.size(); ++h) row[h] += pixels[p] * hidden[h];
  }
  return loss;
}

void adam_update(Parameter& parameter, std::uint64_t step) {
  constexpr float kRate = 2e-3F, kBeta1 = 0.9F, kBeta2 = 0.999F, kEpsilon = 1e-8F;
  const float correction1 = 1 - std::pow(kBeta1, static_cast<float>(step));
  const float correction2 = 1 - std::pow(kBeta2, static_cast<float>(step));
  for (std::size_t i = 0; i < parameter.value.size(); ++i) {
    const float gradient = parameter.gradient[i] / static_cast<float>(kBatch);
    float& mean = parameter.mean[i];
    float& variance = parameter.variance[i];
    mean = kBeta1 * mean + (1 - kBeta1) * gradient;
    variance = kBeta2 * variance + (1 - kBeta2) * gradient * gradient;
    parameter.value[i] -=
        kRate * (mean / correction1) / (std::sqrt(variance / correction2) + kEpsilon);
  }
}

}  // namespace

Samples load_samples(const std::string& path) {
  std::ifstream file(path);
  Samples samples;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string field;
    std::vector<float> row;
    while (std::getline(fields, field, ',')) row.push_back(std::strtof(field.c_str(), nullptr));
    if (row.size() != kPixels + 1 || !(row.back() >= 0 && row.back() < float{kClasses})) break;
    for (std::size_t p = 0; p < kPixels; ++p) samples.pixels.push_back(row[p] / 16);
    samples.labels.push_back(static_cast<std::size_t>(row.back()));
  }
  if (!file.eof() || samples.labels.size() < kTestSamples + kBatch) {
    return {};
  }
  return samples;
}

Training new_training(const Samples& samples, std::size_t hidden_size) {
  Training training;
  const auto make = [&](std::string name, std::vector<std::uint64_t> shape, float scale) {
    std::size_t size = 1;
    for (const std::uint64_t extent : shape) size *= extent;
    Parameter parameter{std::move(name), std::move(shape), {}, {}, {}, {}};
    parameter.gradient.resize(size);
    parameter.mean.resize(size);
    parameter.variance.resize(size);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < size; ++i) {
      parameter.value.push_back(scale * normal(training.generator));
    }
    return parameter;
  };
  training.parameters = {make("w1", {kPixels, hidden_size}, 0.15F), make("b1", {hidden_size}, 0),
                         make("w2", {hidden_size, kClasses}, 0.15F), make("b2", {kClasses}, 0)};
  training.order.resize(samples.labels.size() - kTestSamples);
  std::iota(training.order.begin(), training.order.end(), 0);
  std::shuffle(training.order.begin(), training.order.end(), training.generator);
  return training;
}

void train_step(Training& training, const Samples& samples) {
  if (static_cast<std::size_t>(training.position) + kBatch > training.order.size()) {
    std::shuffle(training.order.begin(), training.order.end(), training.generator);
    training.position = 0;
  }
  for (Parameter& parameter : training.parameters) std::ranges::fill(parameter.gradient, 0.0F);
  float loss = 0;
  for (std::size_t i = 0; i < kBatch; ++i) {
    const auto sample =
        static_cast<std::size_t>(training.order[static_cast<std::size_t>(training.position) + i]);
    loss +=
        accumulate_gradient(training, &samples.pixels[sample * kPixels], samples.labels[sample]);
  }
  training.position += std::int64_t{kBatch};
  ++training.step;
  for (Parameter& parameter : training.parameters) adam_update(parameter, training.step);
  training.losses.push_back(loss / static_cast<float>(kBatch));
}

double test_accuracy(const Training& training, const Samples& samples) {
  std::vector<float> hidden;
  std::size_t right = 0;
  for (std::size_t i = samples.labels.size() - kTestSamples; i < samples.labels.size(); ++i) {
    const auto logits = forward(training, &samples.pixels[i * kPixels], hidden);
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    right += static_cast<std::size_t>(best) == samples.labels[i] ? 1U : 0U;
  }
  return static_cast<double>(right) / static_cast<double>(kTestSamples);
}

}  // namespace digits
