"""The plan endpoint: plans and their stages as models behind OpenAI's protocol."""
