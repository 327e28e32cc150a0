"""stub"""
class CallWanted:
    def __init__(self, call): pass
    @staticmethod
    def is_memory_call(name): return False
class CallExplanation:
    pass
