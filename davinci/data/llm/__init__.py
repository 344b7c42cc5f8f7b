"""Operations that ask a language model: any server that speaks OpenAI's chat completions, vLLM included."""
