// The form of scripts, styles and words.

export default { printWidth: 120 };
