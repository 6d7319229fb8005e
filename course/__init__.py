"""What a learner does beside reading docs/course.md: exercises, bug museum, quiz, the chapters as notebooks."""
