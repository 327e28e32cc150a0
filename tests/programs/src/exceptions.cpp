// Exceptions through frames with destructors, across threads, rethrown and nested; RTTI, streams, containers.
#include <exception>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Noisy {
    std::string name;
    explicit Noisy(std::string n) : name(std::move(n)) {}
    ~Noisy() { std::cout << "unwound " << name << '\n'; }
};

struct Odd : std::runtime_error {
    int value;
    explicit Odd(int v) : std::runtime_error("odd " + std::to_string(v)), value(v) {}
};

static int deep(int n)
{
    Noisy frame("frame " + std::to_string(n));
    if (n == 0)
        throw Odd(41);
    return deep(n - 1) + 1;
}

static void nested()
{
    try {
        deep(0);
    } catch (...) {
        std::throw_with_nested(std::logic_error("outer"));
    }
}

int main()
{
    try {
        deep(2);
    } catch (const std::exception &e) {
        std::cout << e.what() << ' ' << dynamic_cast<const Odd &>(e).value << '\n';
    }
    try {
        nested();
    } catch (const std::logic_error &e) {
        try {
            std::rethrow_if_nested(e);
        } catch (const Odd &inner) {
            std::cout << e.what() << " over " << inner.what() << '\n';
        }
    }
    auto future = std::async(std::launch::async, [] { return std::vector<int>(3).at(5); });
    try {
        future.get();
    } catch (const std::out_of_range &) {
        std::cout << "from a thread: out of range\n";
    }
    try {
        volatile std::size_t size = std::size_t(1) << 60;
        std::unique_ptr<char[]> huge(new char[size]);
        huge[0] = 1;
    } catch (const std::bad_alloc &e) {
        std::cout << e.what() << '\n';
    }
    int caught = 0;
    for (int i = 0; i < 200; i++)
        try {
            throw i;
        } catch (int value) {
            caught += value;
        }
    std::map<std::string, int> words{{"b", 2}, {"a", 1}};
    for (const auto &[word, count] : words)
        std::cout << word << count << ' ';
    std::cout << caught << std::endl;
    std::set_terminate([] { std::cout << "terminate" << std::endl; std::_Exit(3); });
    throw 1;
}
