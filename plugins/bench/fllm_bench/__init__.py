"""``furiosa-llm bench``: send the same load to several servers in turn and compare the measurements."""
