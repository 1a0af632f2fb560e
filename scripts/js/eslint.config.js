// Rules for the scripts: nothing unused, nothing shadowed, nothing too complex.

export default [
  {
    files: ["**/*.js"],
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      complexity: ["error", 15],
      "no-shadow": "error",
      "no-unused-vars": ["error", { caughtErrors: "all", ignoreRestSiblings: true }],
      "prefer-const": "error",
      eqeqeq: "error",
      "no-var": "error",
    },
  },
];
