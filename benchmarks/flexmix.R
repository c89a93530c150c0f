# One EM run of R flexmix, timed around the fit alone.
#
# Rscript flexmix.R FOLDER TOLERANCE ITER_MAX
#
# FOLDER holds size.csv (n, d), and x.bin, y.bin, start.bin: doubles, columns first.
# `start` has the responsibilities (n, 2) that the first M-step sees. Writes fit.json.
suppressPackageStartupMessages(library(flexmix))
given <- commandArgs(trailingOnly = TRUE)
folder <- given[1]
size <- scan(file.path(folder, "size.csv"), sep = ",", quiet = TRUE)
n <- size[1]
d <- size[2]
doubles <- function(name, columns) {
  path <- file.path(folder, name)
  matrix(readBin(path, "double", n * columns), n, columns)
}
x <- doubles("x.bin", d)
colnames(x) <- paste0("x", seq_len(d))
data <- data.frame(y = doubles("y.bin", 1)[, 1], x)
start <- doubles("start.bin", 2)
gate <- reformulate(colnames(x))

set.seed(1)
before <- proc.time()
fit <- flexmix(
  y ~ ., data = data, k = 2, cluster = start,
  model = FLXMRglm(family = "gaussian"), concomitant = FLXPmultinom(gate),
  control = list(
    tolerance = as.numeric(given[2]), iter.max = as.numeric(given[3]), minprior = 0
  )
)
took <- proc.time() - before

experts <- parameters(fit)
numbers <- function(values) {
  paste0("[", paste(formatC(values, digits = 17, format = "g"), collapse = ","), "]")
}
rows <- function(matrix) {
  paste0("[", paste(apply(matrix, 1, numbers), collapse = ","), "]")
}
terms <- d + 1
cat(
  "{\"wall_s\":", took[["elapsed"]],
  ",\"cpu_s\":", took[["user.self"]] + took[["sys.self"]],
  ",\"steps\":", fit@iter,
  ",\"converged\":", if (fit@converged) "true" else "false",
  ",\"own_log_likelihood\":", numbers(fit@logLik),
  ",\"coefficient\":", rows(experts[seq_len(terms), , drop = FALSE]),
  ",\"noise_sd\":", numbers(experts[terms + 1, ]),
  ",\"gate\":", rows(parameters(fit, which = "concomitant")),
  ",\"versions\":\"R ", as.character(getRversion()),
  ", flexmix ", as.character(packageVersion("flexmix")), "\"}\n",
  sep = "", file = file.path(folder, "fit.json")
)
