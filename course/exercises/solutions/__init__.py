"""Solutions, the cases that they are tried on, and the mistakes that the checks know. 答案，做完再看。"""
